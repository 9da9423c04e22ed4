package cachehook

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a program may wrap its client in.
type (
	wrapsAny     struct{ redis.UniversalClient }
	wrapsCluster struct{ *redis.ClusterClient }
	wrapsWrapper struct{ *wrapsAny }
	wrapsClient  struct{ *redis.Client }
)

func TestConfigOfClientForms(t *testing.T) {
	t.Parallel()
	single := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	sentinel := &redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{"127.0.0.1:1"}}
	over := redis.NewFailoverClusterClient(sentinel)
	failover := redis.NewFailoverClient(sentinel)
	batching, err := single.AutoPipeline()
	must(t, err)
	t.Cleanup(func() {
		for _, c := range []redis.UniversalClient{single, cluster, ring, over, failover} {
			_ = c.Close()
		}
	})
	for name, tt := range map[string]struct {
		client redis.UniversalClient
		want   string // empty: it is taken
	}{
		"none":                          {nil, ""},
		"one server":                    {single, ""},
		"Sentinel":                      {failover, ""},
		"Cluster":                       {cluster, ""},
		"a wrapped server":              {wrapsAny{single}, ""},
		"an embedded server":            {wrapsClient{single}, ""},
		"an embedded Cluster":           {wrapsCluster{cluster}, ""},
		"an embedded Cluster's pointer": {&wrapsCluster{cluster}, ""},
		"nil in an interface":           {(*redis.Client)(nil), "Redis is a nil *redis.Client: must be a client, or nil itself"},
		"nil in a wrapper's":            {(*wrapsCluster)(nil), "Redis is a nil *cachehook.wrapsCluster: must be"},
		"a wrapper around nothing":      {wrapsAny{}, "Redis is a cachehook.wrapsAny: must be a client"},
		"a wrapper around a nil client": {wrapsCluster{}, "Redis is a cachehook.wrapsCluster over a nil *redis.ClusterClient: must be a client"},
		"ring":                          {ring, "Redis is a *redis.Ring: must be a single server, Sentinel or a Cluster"},
		"a wrapped ring":                {&wrapsAny{ring}, "Redis is a *cachehook.wrapsAny over a *redis.Ring: must be a single server"},
		"a hidden Cluster":              {wrapsAny{cluster}, "Redis is a cachehook.wrapsAny over a *redis.ClusterClient: must have its methods ForEachMaster, MasterForKey and Options"},
		"a Cluster hidden twice":        {wrapsWrapper{&wrapsAny{cluster}}, "Redis is a cachehook.wrapsWrapper over a *redis.ClusterClient: must have"},
		"Sentinel as a Cluster":         {over, "Redis is a *redis.ClusterClient with ClusterSlots: must find its slots by itself"},
		"the same in a struct":          {wrapsCluster{over}, "Redis is a cachehook.wrapsCluster over a *redis.ClusterClient with ClusterSlots: must find"},
		"pipelines by themselves":       {batching, "Redis is a *redis.AutoPipeliner: must be the client that it was made from"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Redis: tt.client}
			err := cfg.Validate()
			if tt.want == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), "cachehook: "+tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			_ = New(cfg).Close() // does not panic
		})
	}
}

// lines is a log to look into.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// unusable opens a cache with a Redis that it cannot use, and returns what is wrong.
func unusable(t *testing.T, dsn string, cfg Config) string {
	t.Helper()
	log := &lines{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	cfg.OnRedisFailure = FailWrite
	db := open(t, dsn, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := db.cache.Ready(ctx)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("Ready: %v", err)
	}
	for range 3 {
		equal(t, "price", db.price(t, 1), 10)
	}
	if s := db.cache.Stats(); s.L1Hits+s.L2Hits > 0 {
		t.Fatalf("hits: %+v", s)
	}
	// Others would not be told of it where they listen.
	if err := db.Model(&product{ID: 2}).Update("price", 1).Error; !errors.Is(err, ErrInvalidation) {
		t.Fatalf("a write: %v", err)
	}
	eventually(t, "the log tells", 20*time.Second, func() bool { return log.count("nothing is cached, and writes count") == 1 })
	return err.Error()
}

// A client whose commands say what another server would.
type posing struct{ from, to string }

func (posing) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (posing) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (p posing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if info, ok := cmd.(*redis.StringCmd); ok && cmd.Name() == "info" {
				info.SetVal(strings.ReplaceAll(info.Val(), p.from, p.to))
			}
		}
		return err
	}
}

func TestServersThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		as   posing
		want string
	}{
		"old":         {posing{"redis_version:7.", "redis_version:6.2."}, "the server is Redis 6.2.0.15: must be 7 or later"},
		"a Cluster's": {posing{"redis_mode:standalone", "redis_mode:cluster"}, "the server belongs to a Cluster, and Config.Redis is a *redis.Client: must be a *redis.ClusterClient"},
		"a Valkey's":  {posing{"redis_mode:standalone", "server_mode:cluster"}, "the server belongs to a Cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, space := client(t)
			version := rdb.Info(t.Context(), "server").Val()
			tt.want = strings.ReplaceAll(tt.want, "6.2.0.15", strings.Replace(infoField(version, "redis_version"), "7.", "6.2.", 1))
			rdb.AddHook(tt.as)
			if got := unusable(t, database(t), Config{Redis: rdb, Name: space}); !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A client that reaches a replica alone caches nothing, and that replica's promotion
// mends it.
func TestReplicaIsNoRedisToCacheBy(t *testing.T) {
	t.Parallel()
	for name, writable := range map[string]string{"read-only": "yes", "writable": "no"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master, replica := own(t), own(t)
			do := func(args ...any) {
				t.Helper()
				_, err := replica.Do(t.Context(), args...)
				must(t, err)
			}
			dsn := database(t)
			a := open(t, dsn, Config{Redis: clientOf(t, master.Addr())})
			ready(t, a)
			equal(t, "a fills", a.price(t, 1), 10)
			do("CONFIG", "SET", "replica-read-only", writable)
			do("REPLICAOF", "127.0.0.1", master.Port())
			rdb := clientOf(t, replica.Addr())
			eventually(t, "the replica is in step", time.Minute, func() bool {
				return len(keysOf(t, rdb, "*:e:*")) == 1 && strings.Contains(rdb.Info(t.Context(), "replication").Val(), "master_link_status:up")
			})
			b := open(t, dsn, Config{Redis: rdb, Lease: time.Minute})
			eventually(t, "b has looked", time.Minute, func() bool { return b.cache.witness.doubts.Load() > 0 })
			for price := int64(20); price < 30; price++ {
				equal(t, "b", b.price(t, 1), a.price(t, 1))
				a.setPrice(t, 1, price)
				equal(t, "b after a's write", b.price(t, 1), price)
			}
			if s := b.cache.Stats(); s.L1Hits+s.L2Hits > 0 {
				t.Fatalf("hits by a replica: %+v", s)
			}
			do("REPLICAOF", "NO", "ONE")
			cached(t, b)
		})
	}
}

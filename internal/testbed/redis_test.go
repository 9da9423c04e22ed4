package testbed_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

func client(t *testing.T, r *testbed.Redis) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: r.Addr(), ContextTimeoutEnabled: true})
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func keys(t *testing.T, r *testbed.Redis) int64 {
	t.Helper()
	n, err := r.Do(deadline(t), "DBSIZE")
	check(t, err)
	return n.(int64)
}

func TestRedisIsEmptyAfterFlushStopAndKill(t *testing.T) {
	r := testbed.NewRedis(t, testbed.RedisConfig{})
	for name, empty := range map[string]func() error{
		"flush": func() error { return r.FlushAll(deadline(t)) },
		"stop":  func() error { check(t, r.Stop()); return r.Start(deadline(t)) },
		"kill":  func() error { check(t, r.Kill()); return r.Start(deadline(t)) },
	} {
		_, err := r.Do(deadline(t), "SET", "k", "v")
		check(t, err)
		if n := keys(t, r); n != 1 {
			t.Fatalf("%s: %d keys before, want 1", name, n)
		}
		check(t, empty())
		if n := keys(t, r); n != 0 {
			t.Errorf("%s: %d keys after, want 0", name, n)
		}
	}
}

func TestRedisSettingsReplaceDefaults(t *testing.T) {
	r := testbed.NewRedis(t, testbed.RedisConfig{Settings: map[string]string{"appendonly": "yes", "maxmemory": "10mb"}})
	for name, want := range map[string]string{"appendonly": "yes", "maxmemory": "10485760"} {
		got, err := client(t, r).ConfigGet(deadline(t), name).Result()
		check(t, err)
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestFrozenRedisDoesNotAnswer(t *testing.T) {
	r := testbed.NewRedis(t, testbed.RedisConfig{})
	c := client(t, r)
	check(t, c.Ping(deadline(t)).Err())
	check(t, r.Freeze())
	short, cancel := context.WithTimeout(deadline(t), 100*time.Millisecond)
	defer cancel()
	if err := c.Ping(short).Err(); err == nil {
		t.Error("a frozen Redis answered")
	}
	check(t, r.Thaw())
	check(t, c.Ping(deadline(t)).Err())
}

func TestClientKillClosesClientsAndSubscribers(t *testing.T) {
	r := testbed.NewRedis(t, testbed.RedisConfig{})
	c := client(t, r)
	sub := c.Subscribe(deadline(t), "channel")
	defer sub.Close()
	_, err := sub.Receive(deadline(t)) // the confirmation
	check(t, err)
	check(t, c.Ping(deadline(t)).Err())
	killed, err := r.ClientKill(deadline(t))
	check(t, err)
	if killed != 2 {
		t.Errorf("killed %d clients, want the client and the subscriber", killed)
	}
}

func TestSharedRedisAnswers(t *testing.T) {
	r := testbed.SharedRedis(t)
	check(t, client(t, r).Ping(deadline(t)).Err())
	if testbed.SharedRedis(t) != r {
		t.Error("a second call started a second Redis")
	}
}

func TestRedisClusterSurvivesFailovers(t *testing.T) {
	t.Parallel()
	c := testbed.NewRedisCluster(t, testbed.RedisClusterConfig{})
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
	defer rdb.Close()
	const n = 30 // keys over all shards
	for i := range n {
		check(t, rdb.Set(deadline(t), key(i), i, 0).Err())
	}

	first, second, err := c.Shard(deadline(t), 0)
	check(t, err)
	check(t, c.Failover(deadline(t), 0))
	master, _, err := c.Shard(deadline(t), 0)
	check(t, err)
	if master != second {
		t.Errorf("after a failover the master is %s, want %s", master.Name(), second.Name())
	}

	// Now without agreement: the replica is elected.
	check(t, c.WaitReady(deadline(t)))
	check(t, second.Kill())
	poll(t, "election of the replica", func(ctx context.Context) bool {
		role, err := first.Do(ctx, "ROLE")
		return err == nil && role.([]any)[0] == "master"
	})
	check(t, c.WaitReady(deadline(t)))
	check(t, second.Start(deadline(t)))
	check(t, c.WaitReady(deadline(t)))
	for i := range n {
		got, err := rdb.Get(deadline(t), key(i)).Int()
		check(t, err)
		if got != i {
			t.Errorf("%s = %d, want %d", key(i), got, i)
		}
	}
	check(t, c.FlushAll(deadline(t)))
	if got, err := rdb.DBSize(deadline(t)).Result(); err != nil || got != 0 {
		t.Errorf("%d keys after FlushAll, %v", got, err)
	}
}

func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	for _, sentinels := range []int{1, 3} {
		s := testbed.NewRedisSentinel(t, testbed.RedisSentinelConfig{Sentinels: sentinels})
		rdb := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: testbed.SentinelMaster, SentinelAddrs: s.Addrs()})
		defer rdb.Close()
		// A failover loses what has not reached the replica.
		pipe := rdb.Pipeline()
		pipe.Set(deadline(t), "k", "v", 0)
		pipe.Do(deadline(t), "WAIT", 1, 0)
		_, err := pipe.Exec(deadline(t))
		check(t, err)

		first, second := s.Nodes()[0], s.Nodes()[1]
		check(t, s.Failover(deadline(t)))
		master, err := s.Master(deadline(t))
		check(t, err)
		if master != second {
			t.Fatalf("after a failover the master is %s, want %s", master.Name(), second.Name())
		}

		// Now decided by the sentinels themselves.
		check(t, second.Kill())
		check(t, s.WaitFailover(deadline(t), second))
		check(t, second.Start(deadline(t)))
		poll(t, "the client to reach the new master", func(ctx context.Context) bool {
			v, err := rdb.Get(ctx, "k").Result()
			return err == nil && v == "v"
		})
		if master, err = s.Master(deadline(t)); err != nil || master != first {
			t.Errorf("after the master's death the master is %v, %v, want %s", master, err, first.Name())
		}
	}
}

func key(i int) string { return "key" + string(rune('A'+i)) }

// poll waits until cond is true.
func poll(t *testing.T, what string, cond func(context.Context) bool) {
	t.Helper()
	ctx := deadline(t)
	for !cond(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("no %s in time", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func BenchmarkStartRedis(b *testing.B) {
	testbed.RequireRedis(b)
	benchmarkStart(b, testbed.StartRedis)
}

func BenchmarkStartRedisCluster(b *testing.B) {
	testbed.RequireRedis(b)
	benchmarkStart(b, testbed.StartRedisCluster)
}

func BenchmarkStartRedisSentinel(b *testing.B) {
	testbed.RequireRedis(b)
	benchmarkStart(b, testbed.StartRedisSentinel)
}

func benchmarkStart[C any, T interface{ Close() error }](b *testing.B, start func(context.Context, C) (T, error)) {
	var cfg C
	for b.Loop() {
		v, err := start(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

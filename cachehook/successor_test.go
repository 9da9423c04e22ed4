package cachehook

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestSucceeded(t *testing.T) {
	t.Parallel()
	one := server{id: "1", history: "h1", offset: 100}
	two := server{id: "2", history: "h2", offset: 200}
	heir := func(id string, of server, at int64) server {
		return server{id: id, history: "new" + id, before: of.history, branched: at}
	}
	for _, tt := range []struct {
		name        string
		before, now []server
		want        string // who has come; "no"
	}{
		{"the same", []server{one, two}, []server{two, one}, ""},
		{"one has an heir of all", []server{one, two}, []server{two, heir("3", one, 101)}, "3"},
		{"and of more", []server{one, two}, []server{two, heir("3", one, 500)}, "3"},
		{"the last byte is missing", []server{one, two}, []server{two, heir("3", one, 100)}, "no"},
		{"both have heirs", []server{one, two}, []server{heir("4", two, 201), heir("3", one, 101)}, "4 3"},
		{"one heir for both", []server{one, two}, []server{heir("3", one, 101)}, "no"},
		{"two heirs of one", []server{one, two}, []server{heir("3", one, 101), heir("4", one, 101)}, "no"},
		{"a stranger", []server{one, two}, []server{two, {id: "3", history: "h", before: "h0", branched: 999}}, "no"},
		{"a stranger without a past", []server{one, two}, []server{two, {id: "3", history: "h"}}, "no"},
		{"one more", []server{one}, []server{one, heir("3", two, 201)}, "no"},
		{"one less", []server{one, two}, []server{one}, "no"},
		{"none before", nil, []server{one}, "no"},
		{"does not tell its history", []server{{id: "1"}}, []server{{id: "3", branched: 1}}, "no"},
		{"another one's heir", []server{one, two}, []server{two, heir("3", two, 201)}, "no"},
	} {
		came, ok := succeeded(tt.before, tt.now)
		var ids []string
		for _, s := range came {
			ids = append(ids, s.id)
		}
		got := strings.Join(ids, " ")
		if !ok {
			got = "no"
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// stampOfKey reads what stands in Redis.
func (c *cluster) stampOfKey(t *testing.T, key string) string {
	t.Helper()
	s, err := c.client(t, redis.ClusterOptions{}).HGet(c.ctx, key, "s").Result()
	must(t, err)
	return s
}

// settledFor waits until the cache has looked and has heard all for as long as it needs.
func (c *cluster) settledFor(t *testing.T, db *instance) {
	t.Helper()
	eventually(t, "it has heard all for long enough", time.Minute, func() bool {
		whole := db.cache.whole.Load()
		return whole != nil && time.Since(*whole) > 2*db.cache.markTTL+2*watchEvery && !db.cache.doubtful()
	})
}

// quick opens an instance with marks that run out soon, so that little must have been heard.
func (c *cluster) quick(t *testing.T, cfg Config, prepare func(*Cache)) *instance {
	t.Helper()
	cfg.Redis = c.client(t, redis.ClusterOptions{})
	return openPrepared(t, c.dsn, cfg, &gorm.Config{}, func(c *Cache) {
		c.markTTL = time.Second
		c.store.(*redisStore).markTTL = c.markTTL
		prepare(c)
	})
}

// A shard of tags is replaced by a replica that has all: what was cached goes on.
func TestC06ClusterFailoverKeepsWhatIsSound(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})
	probe := c.open(t, Config{Name: "probe"})
	table := probe.table(t, "products")
	name, shard := c.apart(t, table)
	log := &lines{}
	cfg := Config{Name: name, Logger: slog.New(slog.NewTextHandler(log, nil))}
	nothing := func(*Cache) {}
	a, b := c.quick(t, cfg, nothing), c.quick(t, cfg, nothing)
	ready(t, a, b)
	named(t, a)
	cached(t, a, b)
	c.settledFor(t, a)
	c.settledFor(t, b)
	every := "infra:" + name + ":cache:t:" + everyTag
	before, tag := c.stampOfKey(t, every), c.stampOfKey(t, "infra:"+name+":cache:t:"+table)
	for round := range 2 {
		queries := a.seen.queries.Load() + b.seen.queries.Load()
		must(t, c.Failover(c.ctx, shard))
		eventually(t, "the new master is known", time.Minute, func() bool {
			return log.count("masters of the Redis Cluster were replaced") > round
		})
		for _, i := range []*instance{a, b} {
			eventually(t, "it has looked", time.Minute, func() bool { return !i.cache.doubtful() })
		}
		equal(t, "all is invalid", log.count("all that was cached is invalid"), 0)
		equal(t, "everything's stamp", c.stampOfKey(t, every), before)
		equal(t, "the table's stamp", c.stampOfKey(t, "infra:"+name+":cache:t:"+table), tag)
		cached(t, a, b)
		t.Logf("queries meanwhile: %d", a.seen.queries.Load()+b.seen.queries.Load()-queries)
		seesWithin(t, a, b, int64(70+round))
		tag = c.stampOfKey(t, "infra:"+name+":cache:t:"+table)
		must(t, c.WaitReady(c.ctx))
		cached(t, a, b)
		c.settledFor(t, a)
		c.settledFor(t, b)
		eventually(t, "what was written is not recent any more", 2*rememberFor, func() bool {
			now := time.Now()
			tags, known := a.cache.heardOf.tags(now, now.Add(-2*a.cache.markTTL-2*watchEvery))
			return known && len(tags) == 0
		})
	}
}

// A shard of tags is promoted without the last write, whose writer has ended: another
// one that has heard of it tells it again, and nothing else.
func TestC06ClusterFailoverAfterTheWriterHasEnded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})
	probe := c.open(t, Config{Name: "probe"})
	table := probe.table(t, "products")
	name, shard := c.apart(t, table)
	log := &lines{}
	a := c.quick(t, Config{Name: name}, func(*Cache) {})
	b := c.quick(t, Config{Name: name, Logger: slog.New(slog.NewTextHandler(log, nil))}, func(b *Cache) {
		b.witness.every.Store(int64(time.Hour)) // it looks when it is told to
	})
	ready(t, a, b)
	named(t, a)
	cached(t, a, b)
	c.settledFor(t, b)
	b.cache.witness.doubt()
	eventually(t, "b has looked", time.Minute, func() bool { return !b.cache.doubtful() })
	master, replica, err := c.Shard(c.ctx, shard)
	must(t, err)
	// A list depends on the table's tag; a look-up by key on the row's, in another shard.
	sum := func() string { return b.text(t, "SELECT sum(price)::text FROM products") }
	equal(t, "b's list", sum(), "50500")
	every := "infra:" + name + ":cache:t:" + everyTag
	before := c.stampOfKey(t, every)
	_, err = master.Do(c.ctx, "ACL", "SETUSER", "default", "-psync", "-sync")
	must(t, err)
	_, err = master.Do(c.ctx, "CLIENT", "KILL", "TYPE", "replica")
	must(t, err)
	a.setPrice(t, 1, 77)
	must(t, a.cache.Close())
	eventually(t, "b has heard of it", 20*time.Second, func() bool {
		now := time.Now()
		tags, _ := b.cache.heardOf.tags(now, now.Add(-rememberFor))
		return slices.Contains(tags, table)
	})
	must(t, master.Kill())
	_, err = replica.Do(c.ctx, "CLUSTER", "FAILOVER", "TAKEOVER")
	must(t, err)
	must(t, c.WaitReady(c.ctx))
	b.cache.witness.doubt()
	eventually(t, "b has looked", time.Minute, func() bool { return log.count("were replaced")+log.count("all that was cached") > 0 })
	equal(t, "everything is invalid", log.count("all that was cached is invalid"), 0)
	equal(t, "everything's stamp", c.stampOfKey(t, every), before)
	equal(t, "b", b.price(t, 1), 77)
	equal(t, "b's list after the write", sum(), "50567")
	cached(t, b)
	equal(t, "b, from memory", b.price(t, 1), 77)

	last := sighting{began: time.Now(), roster: "r"}
	known, err := b.cache.serverContinued(c.ctx, last, "r")
	must(t, err)
	equal(t, "known where all was heard", known, true)
	b.cache.channel.confirmed()
	known, err = b.cache.serverContinued(c.ctx, last, "r")
	must(t, err)
	equal(t, "known where something was missed", known, false)
	last.began = time.Now().Add(-rememberFor)
	b.cache.whole.Store(new(time.Time))
	known, err = b.cache.serverContinued(c.ctx, last, "r")
	must(t, err)
	equal(t, "known of too long ago", known, false)
}

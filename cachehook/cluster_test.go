package cachehook

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// cluster is a Redis Cluster of a test's own.
type cluster struct {
	*testbed.RedisCluster
	ctx context.Context
	dsn string
}

func newCluster(t *testing.T, cfg testbed.RedisClusterConfig) *cluster {
	t.Helper()
	testbed.RequireRedis(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return &cluster{testbed.NewRedisCluster(t, cfg), ctx, database(t)}
}

// elsewhere is the same Cluster with another database.
func (c *cluster) elsewhere(t *testing.T) *cluster {
	t.Helper()
	return &cluster{c.RedisCluster, c.ctx, database(t)}
}

func (c *cluster) client(t *testing.T, o redis.ClusterOptions) *redis.ClusterClient {
	t.Helper()
	o.Addrs = c.Addrs()
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = time.Second, time.Second, time.Second
	rdb := redis.NewClusterClient(&o)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func (c *cluster) open(t *testing.T, cfg Config) *instance {
	t.Helper()
	if cfg.Redis == nil {
		cfg.Redis = c.client(t, redis.ClusterOptions{})
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Second
	}
	return open(t, c.dsn, cfg)
}

// slotOf returns a key's slot, and the shard that had it at the start.
func slotOf(key string) (slot, shard int) {
	if _, after, tagged := strings.Cut(key, "{"); tagged {
		key, _, _ = strings.Cut(after, "}")
	}
	slot = int(crc16(key)) % 16384
	for 16384*(shard+1)/3 <= slot {
		shard++
	}
	return slot, shard
}

// crc16 is the XMODEM one, by which a Cluster finds slots.
func crc16(s string) (sum uint16) {
	for i := range len(s) {
		sum ^= uint16(s[i]) << 8
		for range 8 {
			if sum&0x8000 != 0 {
				sum = sum<<1 ^ 0x1021
			} else {
				sum <<= 1
			}
		}
	}
	return sum
}

// cached reads until memory serves without a question.
func cached(t *testing.T, instances ...*instance) {
	t.Helper()
	for _, i := range instances {
		hits := i.seen.count(hook.L1)
		eventually(t, "memory is trusted and serves", time.Minute, func() bool {
			i.price(t, 1)
			return i.cache.Stats().Trusted && i.seen.count(hook.L1) > hits
		})
	}
}

// seesWithin lets one write and the other read what was written, at most a lease
// later; a busy machine is given some more.
func seesWithin(t *testing.T, writer, reader *instance, price int64) {
	t.Helper()
	writer.setPrice(t, 1, price)
	wrote := time.Now()
	equal(t, "the writer's own read", writer.price(t, 1), price)
	for {
		began := time.Now()
		if reader.price(t, 1) == price {
			return
		}
		if late := began.Sub(wrote); late > reader.cache.cfg.Lease {
			t.Fatalf("price %d: %v late, with a lease of %v", price, late, reader.cache.cfg.Lease)
		}
	}
}

// C04, C06: on a Cluster as on one server.
func TestC06ClusterLease(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})

	t.Run("hits ask nobody and writes are heard of", func(t *testing.T) {
		t.Parallel()
		c := c.elsewhere(t)
		seen := &trips{}
		noted := c.client(t, redis.ClusterOptions{Dialer: seen.dial})
		a := c.open(t, Config{Name: "hits", Redis: noted, Lease: time.Minute})
		b := c.open(t, Config{Name: "hits"})
		ready(t, a, b)
		cached(t, a, b)
		seen.take()
		queries, hits := a.seen.queries.Load(), a.seen.count(hook.L1)
		for range 200 {
			equal(t, "price", a.price(t, 1), 10)
		}
		asked, sets := seen.take()
		if len(asked) != 0 || sets != 0 || a.seen.queries.Load() != queries || a.seen.count(hook.L1)-hits != 200 {
			t.Fatalf("200 hits: asked %q, %d SETs, %d queries", asked, sets, a.seen.queries.Load()-queries)
		}
		for i := int64(1); i <= 10; i++ {
			seesWithin(t, a, b, 100+i)
			cached(t, b)
		}
		// It hears by the channel, for which it would wait a minute otherwise.
		b.setPrice(t, 1, 7)
		eventually(t, "a hears of it", 20*time.Second, func() bool { return a.price(t, 1) == 7 })
	})

	t.Run("a struct that embeds the client", func(t *testing.T) {
		t.Parallel()
		c := c.elsewhere(t)
		connect := func() *instance {
			return c.open(t, Config{Name: "embeds", Redis: &wrapsCluster{c.client(t, redis.ClusterOptions{ReadOnly: true})}})
		}
		a, b := connect(), connect()
		ready(t, a, b)
		cached(t, a, b)
		equal(t, "the channel", b.cache.channel.name, "infra:embeds:cache:{embeds}:tags")
		for i := int64(1); i <= 10; i++ {
			seesWithin(t, a, b, i)
		}
	})

	t.Run("a client of one node", func(t *testing.T) {
		t.Parallel()
		c := c.elsewhere(t)
		got := unusable(t, c.dsn, Config{Name: "node", Redis: clientOf(t, c.Nodes()[0].Addr())})
		equal(t, "what is wrong", got, "cachehook: Redis cannot be used: the server belongs to a Cluster, and Config.Redis is a *redis.Client: must be a *redis.ClusterClient")
	})

	t.Run("a client that reads from replicas", func(t *testing.T) {
		t.Parallel()
		for name, lease := range map[string]time.Duration{"lease": 0, "revalidate": RevalidateAlways} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := c.elsewhere(t)
				connect := func() *instance {
					// RouteByLatency does so as well, but go-redis 9.22 measures
					// latencies in a race with making the node's client.
					return c.open(t, Config{Name: name, Lease: lease, Redis: c.client(t, redis.ClusterOptions{RouteRandomly: true})})
				}
				a, b := connect(), connect()
				ready(t, a, b)
				b.price(t, 1) // from here on it has the catalogue
				for i := int64(1); i <= 30; i++ {
					seesWithin(t, a, b, i) // revalidating: at once, as its lease is negative
					equal(t, "b again", b.price(t, 1), i)
				}
				if s := b.cache.Stats(); s.L1Hits < 30 || s.RedisErrors > 0 {
					t.Fatalf("%+v", s)
				}
			})
		}
	})

	// As while a slot moves to and fro: a message is taken by another node.
	t.Run("a message that does not come is missed", func(t *testing.T) {
		t.Parallel()
		c := c.elsewhere(t)
		b := c.open(t, Config{Name: "missed"})
		ready(t, b)
		cached(t, b)
		silent := *b.cache.store.(*redisStore)
		silent.shard, silent.channel = nil, ""
		table := b.table(t, "products")
		exec(t, c.dsn, `UPDATE products SET name = 'missed' WHERE id = 2`)
		read := func() string {
			var p product
			must(t, b.First(&p, 2).Error)
			return p.Name
		}
		read()
		exec(t, c.dsn, `UPDATE products SET name = 'new' WHERE id = 2`)
		must(t, errOf(silent.bump(c.ctx, []string{table, wholeTag(table)}, "", false)))
		equal(t, "nobody has said it", read(), "missed")
		must(t, b.cache.cfg.Redis.HIncrBy(c.ctx, b.cache.store.(*redisStore).shard.counter, "n", 1).Err())
		said := time.Now()
		for began := said; read() != "new"; began = time.Now() {
			if late := began.Sub(said); late > b.cache.cfg.Lease {
				t.Fatalf("%v late, with a lease of %v", late, b.cache.cfg.Lease)
			}
		}
		cached(t, b)
	})
}

func TestCountLeadsTo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		heard, now  count
		ping, whole bool
	}{
		{"the first message", count{}, count{"a", 7}, false, true},
		{"the first ping", count{}, count{"a", 7}, true, true},
		{"the next message", count{"a", 7}, count{"a", 8}, false, true},
		{"a ping after it", count{"a", 8}, count{"a", 8}, true, true},
		{"a message too far", count{"a", 7}, count{"a", 9}, false, false},
		{"a ping that knows of more", count{"a", 7}, count{"a", 8}, true, false},
		{"a message again", count{"a", 7}, count{"a", 7}, false, false},
		{"an older ping", count{"a", 7}, count{"a", 6}, true, false},
		{"another counter's message", count{"a", 7}, count{"b", 8}, false, false},
		{"another counter's ping", count{"a", 7}, count{"b", 7}, true, false},
		{"no number", count{"a", 7}, count{}, false, false},
		{"no number at first", count{}, count{}, true, false},
	} {
		if got := tt.heard.leadsTo(tt.now, tt.ping); got != tt.whole {
			t.Errorf("%s: whole is %v", tt.name, got)
		}
	}
	at, text := countOf("name:12 t:a b\x00t:c")
	equal(t, "count", at, count{"name", 12})
	equal(t, "text", text, "t:a b\x00t:c")
	for _, bad := range []string{"", "x", "a:", "a:b c", "a:-1 c"} {
		if at, _ := countOf(bad); at.born != "" {
			t.Errorf("%q counts as %v", bad, at)
		}
	}
}

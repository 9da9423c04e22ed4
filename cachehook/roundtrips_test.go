package cachehook

import (
	"context"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/hook"
)

// trips notes what is written to Redis about entries and tags, one line a round
// trip: a pipeline is one write.
type trips struct {
	mu   sync.Mutex // guards made
	made []string
}

// dial connects a client whose writes are noted.
func (h *trips) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &notedConn{conn, h}, err
}

type notedConn struct {
	net.Conn
	trips *trips
}

var commandName = regexp.MustCompile(`\*\d+\r\n\$\d+\r\n(\w+)\r\n`)

func (c *notedConn) Write(b []byte) (int, error) {
	if text := string(b); strings.Contains(text, ":cache:e:") || strings.Contains(text, ":cache:t:") { // not: roster, channel, witness
		var names []string
		for _, m := range commandName.FindAllStringSubmatch(text, -1) {
			names = append(names, strings.ToLower(m[1]))
		}
		c.trips.mu.Lock()
		c.trips.made = append(c.trips.made, strings.Join(names, " "))
		c.trips.mu.Unlock()
	}
	return c.Conn.Write(b)
}

// take returns the round trips since the last call, without the background SETs.
func (h *trips) take() (asked []string, sets int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, trip := range h.made {
		if trip == "set" {
			sets++
			continue
		}
		asked = append(asked, trip)
	}
	h.made = nil
	return asked, sets
}

// What the contract says of cost, counted on the wire: a miss asks Redis once and
// tells it once in the background, a hit in memory not at all, a hit in Redis
// once, a write once on each side of its COMMIT.
func TestRoundTripsToRedis(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	seen := &trips{}
	options := *rdb.(*redis.Client).Options()
	options.Dialer = seen.dial
	noted := redis.NewClient(&options)
	t.Cleanup(func() { _ = noted.Close() })
	a := open(t, dsn, Config{Redis: noted, Name: name, Lease: time.Minute})
	b := open(t, dsn, Config{Redis: rdb, Name: name, Lease: time.Minute})
	ready(t, a, b)
	// Each tag is minted once, each script is loaded once, and both instances are on
	// the roster.
	for _, i := range []*instance{a, b} {
		eventually(t, "it is cached", 60*time.Second, func() bool {
			i.price(t, 50)
			return i.seen.count(hook.L1)+i.seen.count(hook.L2) > 0
		})
	}
	a.setPrice(t, 50, 500)
	a.price(t, 50)
	stored := func(keys int) {
		t.Helper()
		eventually(t, "the fill", 60*time.Second, func() bool {
			return len(keysOf(t, rdb, "infra:"+name+":cache:e:*")) == keys
		})
	}
	eventually(t, "the fill after the write", 60*time.Second, func() bool { return l2Carries(t, a, 50) })
	for _, step := range []struct {
		name  string
		do    func()
		trips int
		sets  int
	}{
		{"a miss while the stamps are known", func() { a.price(t, 1); stored(2) }, 1, 1},
		{"a hit in memory", func() { a.price(t, 1) }, 0, 0},
		{"a write, around its COMMIT", func() { a.setPrice(t, 1, 5) }, 2, 0},
		{"a miss after the own write", func() { equal(t, "price", a.price(t, 1), 5) }, 1, 1},
		{"a miss after another instance's write", func() {
			b.setPrice(t, 1, 6)
			eventually(t, "a hears of it", 60*time.Second, func() bool {
				return !a.cache.memory.get(keyOf(t, a.cache, 1)).current(a.cache.mirror)
			})
			seen.take()
			equal(t, "price", a.price(t, 1), 6)
		}, 1, 1},
		{"a hit in Redis after another instance's write and read", func() {
			b.setPrice(t, 1, 7)
			eventually(t, "b's fill", 60*time.Second, func() bool { b.price(t, 1); return b.price(t, 1) == 7 && l2Carries(t, b, 1) })
			eventually(t, "a hears of it", 60*time.Second, func() bool {
				return !a.cache.memory.get(keyOf(t, a.cache, 1)).current(a.cache.mirror)
			})
			seen.take()
			before := a.seen.queries.Load()
			equal(t, "price", a.price(t, 1), 7)
			equal(t, "queries", a.seen.queries.Load()-before, 0)
		}, 1, 0},
	} {
		seen.take()
		step.do()
		var asked []string
		sets := 0
		collect := func() {
			more, s := seen.take()
			asked, sets = slices.Concat(asked, more), sets+s
		}
		eventually(t, step.name+": what is told in the background", 60*time.Second, func() bool { collect(); return sets >= step.sets })
		collect()
		if len(asked) != step.trips || sets != step.sets {
			t.Errorf("%s: %d round trips %q and %d SETs, want %d and %d", step.name, len(asked), asked, sets, step.trips, step.sets)
		}
	}
}

// keyOf is the key in memory of the last entry that was used and is not the
// product number 50: the tests above have one other at a time.
func keyOf(t *testing.T, c *Cache, _ int64) (key []byte) {
	t.Helper()
	var newest *entry
	for i := range c.memory.shards {
		sh := &c.memory.shards[i]
		sh.mu.Lock()
		for _, e := range sh.items {
			if newest == nil || e.read > newest.read {
				newest = e
			}
		}
		sh.mu.Unlock()
	}
	if newest == nil {
		t.Fatal("nothing is in memory")
	}
	return []byte(newest.key)
}

// l2Carries reports whether Redis holds the entry that memory has.
func l2Carries(t *testing.T, i *instance, id int64) bool {
	t.Helper()
	key := keyOf(t, i.cache, id)
	e := i.cache.memory.get(key)
	data, err := i.cache.cfg.Redis.Get(context.Background(), "infra:"+i.cache.cfg.Name+":cache:e:"+l2Name(key)).Bytes()
	if e == nil || err != nil {
		return false
	}
	p, err := decode(data)
	return err == nil && slices.Equal(p.stamps, e.stamps())
}

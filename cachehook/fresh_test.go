package cachehook

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// pass lets time pass for a cache; what has to do with Redis stays in the present.
func pass(c *Cache) (by func(time.Duration)) {
	var passed atomic.Int64
	now := c.now
	c.now = func() int64 { return now() + passed.Load() }
	return func(d time.Duration) { passed.Add(int64(d)) }
}

// behind writes past the plugin, which the cache cannot know of.
func behind(t *testing.T, dsn string, price string) {
	t.Helper()
	exec(t, dsn, "UPDATE products SET price = "+price+" WHERE id = 1")
}

func TestC16NotFoundIsServedForItsOwnShorterTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		cfg         Config
		lives, gone time.Duration // 0: it is not cached at all
	}{
		{"by default", Config{}, 8 * time.Second, 11 * time.Second},
		{"as configured", Config{NotFoundTTL: time.Second}, 800 * time.Millisecond, 1100 * time.Millisecond},
		{"by a rule", Config{Tables: map[string]Rule{"products": {NotFoundTTL: 20 * time.Second}}}, 17 * time.Second, 21 * time.Second},
		{"never above the TTL", Config{Tables: map[string]Rule{"products": {TTL: 2 * time.Second}}}, 1700 * time.Millisecond, 2100 * time.Millisecond},
		{"never", Config{NotFoundTTL: -1}, 0, 0},
		{"never by a rule", Config{Tables: map[string]Rule{"products": {NotFoundTTL: -1}}}, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := open(t, database(t), test.cfg)
			by := pass(db.cache)
			db.price(t, 1)
			read := func() {
				t.Helper()
				if err := db.First(&product{}, 1000).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
					t.Fatalf("got %v", err)
				}
			}
			read()
			by(test.lives)
			read()
			want := 1
			if test.lives == 0 {
				want = 0
			}
			equal(t, "hits in time", db.seen.count(hook.L1), want)
			by(test.gone - test.lives)
			read()
			equal(t, "hits too late", db.seen.count(hook.L1), want)
		})
	}
}

func TestC16NotFoundInRedisEndsWithItsTimeAndWithTheInsert(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name, NotFoundTTL: 5 * time.Second}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	missing := func(i *instance) bool {
		return errors.Is(i.First(&product{}, 1000).Error, gorm.ErrRecordNotFound)
	}
	equal(t, "a finds none", missing(a), true)
	var keys []string
	eventually(t, "the fill", 10*time.Second, func() bool {
		keys = keysOf(t, rdb, "infra:"+name+":cache:e:*")
		return len(keys) == 1
	})
	if ttl := rdb.PTTL(context.Background(), keys[0]).Val(); ttl > 5*time.Second || ttl <= 0 {
		t.Errorf("it stays in Redis for %v", ttl)
	}
	equal(t, "b finds none", missing(b), true)
	equal(t, "b's queries", b.seen.queries.Load(), 0)
	must(t, a.Create(&product{ID: 1000, Price: 7}).Error)
	equal(t, "a after its insert", a.price(t, 1000), 7)
	eventually(t, "b sees it", 10*time.Second, func() bool { return !missing(b) })
}

func TestStaleIsServedWithinItsBoundWhileItIsReadAnew(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := database(t)
		cfg.Tables = map[string]Rule{"products": {TTL: time.Minute, StaleFor: 30 * time.Second}}
		db := open(t, dsn, cfg)
		ready(t, db)
		by := pass(db.cache)
		db.price(t, 1)
		behind(t, dsn, "11")
		by(70 * time.Second)
		if cfg.Redis != nil { // in Redis, too, its TTL has ended
			var keys []string
			eventually(t, "the fill", 30*time.Second, func() bool {
				keys = keysOf(t, cfg.Redis, "infra:"+cfg.Name+":cache:e:*")
				return len(keys) == 1
			})
			must(t, cfg.Redis.Del(context.Background(), keys...).Err())
		}
		parked, release := db.seen.park()
		defer release()
		for range 20 {
			equal(t, "price while it is read anew", db.price(t, 1), 10)
		}
		<-parked
		equal(t, "queries for all of them", db.seen.queries.Load(), 2)
		release()
		eventually(t, "the new price", 30*time.Second, func() bool { return db.price(t, 1) == 11 })
		equal(t, "queries", db.seen.queries.Load(), 2)
		s := db.cache.Stats()
		equal(t, "refreshes", s.Refreshes, 1)
		if s.Stale < 20 {
			t.Errorf("%d stale hits", s.Stale)
		}

		behind(t, dsn, "12")
		by(91 * time.Second)
		if cfg.Redis != nil {
			eventually(t, "the fill", 30*time.Second, func() bool {
				return cfg.Redis.Del(context.Background(), "nothing", "infra:"+cfg.Name+":cache:e:"+l2Name(lastKey(db.cache))).Val() == 1
			})
		}
		equal(t, "price beyond the bound", db.price(t, 1), 12)
	})
}

// lastKey is the key of an entry in memory.
func lastKey(c *Cache) (key []byte) {
	for i := range c.memory.shards {
		sh := &c.memory.shards[i]
		sh.mu.Lock()
		for k := range sh.items {
			key = []byte(k)
		}
		sh.mu.Unlock()
	}
	return key
}

// lastExpiry is when the last of the entries in memory ends.
func lastExpiry(c *Cache) (last int64) {
	for i := range c.memory.shards {
		sh := &c.memory.shards[i]
		sh.mu.Lock()
		for _, e := range sh.items {
			last = max(last, e.expires)
		}
		sh.mu.Unlock()
	}
	return last
}

// What is served stale is never from before a write.
func TestStaleIsNeverServedAcrossAnInvalidation(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		cfg.Tables = map[string]Rule{"products": {TTL: time.Minute, StaleFor: time.Hour}}
		db := open(t, database(t), cfg)
		ready(t, db)
		by := pass(db.cache)
		db.price(t, 1)
		by(2 * time.Minute)
		parked, release := db.seen.park()
		defer release()
		equal(t, "stale", db.price(t, 1), 10) // starts a refresh, which has read and does not fill yet
		<-parked
		db.setPrice(t, 1, 77)
		equal(t, "after the write", db.price(t, 1), 77)
		release()
		eventually(t, "the refresh has ended", 30*time.Second, func() bool {
			db.cache.flights.mu.Lock()
			defer db.cache.flights.mu.Unlock()
			return len(db.cache.flights.flying) == 0
		})
		equal(t, "after the refresh", db.price(t, 1), 77)
	})
}

func TestStaleForByClauseAndByTheStrictestRule(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE others (id bigint PRIMARY KEY)`, `INSERT INTO others VALUES (1)`)
	db := open(t, dsn, Config{Tables: map[string]Rule{"products": {TTL: time.Minute, StaleFor: time.Hour}, "others": {}}})
	by := pass(db.cache)
	read := func(tx *gorm.DB) (n int64) {
		t.Helper()
		must(t, tx.Table("products").Joins("JOIN others ON others.id = products.id").Select("price").Scan(&n).Error)
		return n
	}
	equal(t, "first", read(db.DB), 10)
	equal(t, "first with a clause", read(db.Clauses(StaleFor(time.Hour))), 10)
	behind(t, dsn, "11")
	by(2 * time.Minute)
	equal(t, "where one table allows nothing", read(db.DB), 11)
	equal(t, "where the clause does", read(db.Clauses(StaleFor(time.Hour))), 10)
}

// A database that fails is not asked by each hit.
func TestFailedRefreshWaitsBeforeTheNext(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{Tables: map[string]Rule{"products": {TTL: time.Minute, StaleFor: time.Hour}}})
	by := pass(db.cache)
	db.price(t, 1)
	by(2 * time.Minute)
	before := db.seen.queries.Load()
	fail := func(context.Context, *hook.Record) error { return errors.New("limited") }
	db.seen.charge.Store(&fail)
	for range 50 {
		equal(t, "price", db.price(t, 1), 10)
	}
	eventually(t, "one has been tried", 30*time.Second, func() bool { return db.seen.queries.Load() > before })
	for range 50 {
		equal(t, "price", db.price(t, 1), 10)
	}
	if n := db.seen.queries.Load() - before; n > 2 {
		t.Errorf("%d tries", n)
	}
	db.seen.charge.Store(nil)
	by(refreshPause)
	eventually(t, "it is read anew after a while", 30*time.Second, func() bool {
		db.price(t, 1)
		return db.cache.Stats().Refreshes == 1
	})
}

// The probability is that of XFetch, at any distance from the end.
func TestEarlyRefreshIsAsLikelyAsXFetchSays(t *testing.T) {
	t.Parallel()
	c := New(Config{EarlyRefresh: 2})
	e := &entry{cost: 50_000, expires: int64(time.Hour)} // 50 ms, twice
	for _, left := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		const n = 20_000
		hits := 0
		for range n {
			if c.due(&query{}, e, e.expires-int64(left)) {
				hits++
			}
		}
		want := math.Exp(-float64(left) / float64(100*time.Millisecond))
		if got := float64(hits) / n; math.Abs(got-want) > 0.02 {
			t.Errorf("%v before the end: %.3f, want %.3f", left, got, want)
		}
	}
	for range 1000 {
		if c.due(&query{}, e, e.expires-int64(20*time.Second)) {
			t.Fatal("due long before the end")
		}
	}
	for _, off := range []float64{0, -1} {
		if New(Config{EarlyRefresh: off}).due(&query{}, e, e.expires-1) {
			t.Errorf("due with EarlyRefresh %v", off)
		}
	}
	if c.due(&query{}, &entry{expires: 1000}, 999) {
		t.Error("due with a cost that nobody knows")
	}
}

func TestEarlyRefreshIsOneAndNobodyWaits(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	db := open(t, dsn, Config{EarlyRefresh: 1, Tables: map[string]Rule{"products": {TTL: time.Hour}}})
	by := pass(db.cache)
	must(t, db.Clauses(TTL(time.Minute)).First(&product{}, 2).Error) // the catalogue has been read
	slow := func(*hook.Record) { by(time.Minute) }
	db.seen.done.Store(&slow)
	db.price(t, 1) // took a minute
	db.seen.done.Store(nil)
	behind(t, dsn, "11")
	parked, release := db.seen.park()
	defer release()
	before := db.seen.queries.Load()
	by(time.Duration(lastExpiry(db.cache) - db.cache.now() - int64(50*time.Millisecond))) // where it is all but certain
	eventually(t, "it is read anew", 30*time.Second, func() bool {
		db.price(t, 1)
		return db.seen.queries.Load() > before
	})
	<-parked
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { equal(t, "price while it is read anew", db.price(t, 1), 10) })
	}
	wg.Wait()
	equal(t, "queries", db.seen.queries.Load()-before, 1)
	release()
	eventually(t, "the new price", 30*time.Second, func() bool { return db.price(t, 1) == 11 })
}

func TestJitterOnlyShortens(t *testing.T) {
	t.Parallel()
	c := New(Config{L1: L1{TTL: time.Minute}, L2: L2{TTL: time.Hour}})
	least, most := time.Hour, time.Duration(0)
	for range 5000 {
		l1, l2 := c.lives(&query{}, nil)
		if l1 > time.Minute || l2 > time.Hour || l1 < 54*time.Second || l2 < 54*time.Minute {
			t.Fatalf("%v and %v", l1, l2)
		}
		least, most = min(least, l1), max(most, l1)
	}
	if most-least < 5*time.Second {
		t.Errorf("between %v and %v: no jitter", least, most)
	}
}

// The refresh runs after its caller has gone on, who may change an argument then.
func TestRefreshKeepsArgumentsThatTheCallerChanges(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{Tables: map[string]Rule{"products": {TTL: time.Minute, StaleFor: time.Hour}}})
	by := pass(db.cache)
	arg := []byte("p1")
	read := func(arg any) (id int64) {
		t.Helper()
		must(t, db.Raw("SELECT id FROM products WHERE convert_to(name, 'UTF8') = ?", arg).Scan(&id).Error)
		return id
	}
	equal(t, "id", read(arg), 1)
	by(2 * time.Minute)
	wait := make(chan struct{})
	hold := func(context.Context, *hook.Record) error { <-wait; return nil }
	db.seen.charge.Store(&hold)
	equal(t, "stale", read(arg), 1)
	arg[1] = '2'
	close(wait)
	eventually(t, "the refresh", 30*time.Second, func() bool { return db.cache.Stats().Refreshes == 1 })
	db.seen.charge.Store(nil)
	equal(t, "id of p1", read([]byte("p1")), 1)
	if _, own := ownArgs([]any{&arg}); own {
		t.Error("what a pointer points to can change")
	}
}

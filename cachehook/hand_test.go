package cachehook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"
)

func TestSetGetInvalidate(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		c := db.cache
		v := []byte("value")
		must(t, c.Set(ctx, "k", v, 0, "tag", Table("products")))
		v[0] = 'X'
		got, ok := c.Get(ctx, "k")
		equal(t, "got", string(got), "value")
		equal(t, "found", ok, true)
		got[0] = 'Y'
		got, _ = c.Get(ctx, "k")
		equal(t, "got again", string(got), "value")
		must(t, c.Invalidate(ctx, "other"))
		_, ok = c.Get(ctx, "k")
		equal(t, "found after another tag's", ok, true)
		must(t, c.Invalidate(ctx, "tag"))
		_, ok = c.Get(ctx, "k")
		equal(t, "found after its tag's", ok, false)
		must(t, c.Set(ctx, "k", v, 0, "tag", Table("products")))
		db.setPrice(t, 1, 5)
		_, ok = c.Get(ctx, "k")
		equal(t, "found after its table's write", ok, false)
		must(t, c.Set(ctx, "k", v, 20*time.Millisecond))
		eventually(t, "it expires", 2*time.Second, func() bool { _, ok := c.Get(ctx, "k"); return !ok })
		if err := c.Set(ctx, "k", v, 0, "*"); err == nil {
			t.Fatal("a reserved tag was taken")
		}
	})
}

func TestGetFindsWhatAnotherInstanceHasSet(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rdb, name := client(t)
	dsn := database(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name})
	ready(t, a, b)
	must(t, a.cache.Set(ctx, "k", []byte("v"), 0, "tag"))
	got, ok := b.cache.Get(ctx, "k")
	equal(t, "b", string(got)+fmt.Sprint(ok), "vtrue")
	must(t, b.cache.Invalidate(ctx, "tag"))
	eventually(t, "a hears of it", time.Second, func() bool { _, ok := a.cache.Get(ctx, "k"); return !ok })
}

type profile struct {
	Name  string
	Tags  []string
	Score float64
}

func TestFetch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		var loads atomic.Int64
		fetch := func() profile {
			v, err := Fetch(ctx, db.cache, "p", time.Minute, []string{"tag", Table("products")}, func(context.Context) (profile, error) {
				loads.Add(1)
				return profile{"n", []string{"a"}, 1.5}, nil
			})
			must(t, err)
			return v
		}
		for range 3 {
			v := fetch()
			equal(t, "value", fmt.Sprint(v), "{n [a] 1.5}")
			v.Tags[0] = "changed"
		}
		equal(t, "loads", loads.Load(), 1)
		db.setPrice(t, 1, 5)
		fetch()
		equal(t, "loads after a write", loads.Load(), 2)
		must(t, db.cache.InvalidateTables(ctx, "products"))
		fetch()
		equal(t, "loads after InvalidateTables", loads.Load(), 3)

		boom := errors.New("boom")
		for range 2 {
			if _, err := Fetch(ctx, db.cache, "e", 0, nil, func(context.Context) (int, error) { return 1, boom }); !errors.Is(err, boom) {
				t.Fatal(err)
			}
		}
		n, err := Fetch(ctx, db.cache, "e", 0, nil, func(context.Context) (int, error) { return 7, nil })
		equal(t, "after an error", fmt.Sprint(n, err), "7 <nil>")
		s, err := Fetch(ctx, db.cache, "e", 0, nil, func(context.Context) (string, error) { return "\xff", nil })
		equal(t, "another type under the same key", fmt.Sprintf("%q %v", s, err), `"\xff" <nil>`)
		_, err = Fetch(ctx, db.cache, "e", 0, []string{Table("nowhere")}, func(context.Context) (string, error) { return "x", nil })
		must(t, err)
	})
}

// A tag that is invalidated while load runs: its value is returned, not kept.
func TestFetchOvertakenByAnInvalidation(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		for i := range 3 {
			v, err := Fetch(ctx, db.cache, "k", 0, []string{"tag"}, func(context.Context) (int, error) {
				must(t, db.cache.Invalidate(ctx, "tag"))
				return i, nil
			})
			equal(t, "value", fmt.Sprint(v, err), fmt.Sprint(i, " <nil>"))
		}
	})
}

func TestFetchLoadsOnceForAll(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	var loads atomic.Int64
	goOn := make(chan struct{})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			v, err := Fetch(context.Background(), db.cache, "k", 0, nil, func(context.Context) ([]byte, error) {
				loads.Add(1)
				<-goOn
				return []byte("v"), nil
			})
			if err != nil || string(v) != "v" {
				t.Errorf("%q %v", v, err)
			}
			v[0] = 'x'
		})
	}
	eventually(t, "somebody loads", 5*time.Second, func() bool { return loads.Load() == 1 })
	close(goOn)
	wg.Wait()
	equal(t, "loads", loads.Load(), 1)
}

// What is asked of a cache before db.Use knows no table by more than its name.
func TestC08ACacheAskedBeforeItsUseKnowsTheCatalogueAfterwards(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, ask := range map[string]func(c *Cache) error{
		"Fetch": func(c *Cache) error {
			_, err := Fetch(ctx, c, "k", time.Minute, []string{Table("products")}, func(context.Context) (string, error) { return "old", nil })
			return err
		},
		"Set":              func(c *Cache) error { return c.Set(ctx, "k", []byte("old"), time.Minute, Table("products")) },
		"InvalidateTables": func(c *Cache) error { return c.InvalidateTables(ctx, "products") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := database(t)
			exec(t, dsn, `CREATE VIEW cheap AS SELECT * FROM products WHERE price < 500`)
			db := openPrepared(t, dsn, Config{Tables: map[string]Rule{"cheap": {}}}, &gorm.Config{}, func(c *Cache) { must(t, ask(c)) })
			if _, kept := db.cache.Get(ctx, "k"); kept {
				t.Error("a value under a table's tag is kept from before")
			}
			const sum = `SELECT sum(price)::text FROM cheap WHERE id = 1`
			for _, want := range []string{"10", "11"} {
				equal(t, "sum", db.text(t, sum), want)
				equal(t, "again", db.text(t, sum), want)
				must(t, db.Exec(`UPDATE products SET price = price + 1 WHERE id = 1`).Error)
			}
		})
	}
}

// A load that asks for its own key, at once or by way of another one, does not wait for itself.
func TestFetchInsideOfItselfLoads(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{FlightTimeout: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, by := range [][]string{{"own"}, {"first", "second"}} {
		var loads atomic.Int64
		var load func(at int) func(context.Context) (int, error)
		load = func(at int) func(context.Context) (int, error) {
			return func(ctx context.Context) (int, error) {
				if loads.Add(1) > int64(len(by)) {
					return 7, nil
				}
				next := (at + 1) % len(by)
				return Fetch(ctx, db.cache, by[next], time.Minute, nil, load(next))
			}
		}
		v, err := Fetch(ctx, db.cache, by[0], time.Minute, nil, load(0))
		must(t, err)
		equal(t, "value", v, 7)
		equal(t, "loads", loads.Load(), int64(len(by)+1))
	}
}

func TestNilAndClosedCacheLoad(t *testing.T) {
	t.Parallel()
	load := func(context.Context) (int, error) { return 1, nil }
	v, err := Fetch(context.Background(), nil, "k", 0, nil, load)
	equal(t, "nil", fmt.Sprint(v, err), "1 <nil>")
	c := New(Config{Logger: quiet})
	must(t, c.Close())
	must(t, c.Close())
	v, err = Fetch(context.Background(), c, "k", 0, nil, load)
	equal(t, "closed", fmt.Sprint(v, err), "1 <nil>")
}

func TestWarmingRunsAllAndReportsTheFailing(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	db := open(t, database(t), Config{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Warm: []WarmQuery{
			{Name: "broken", Run: func(db *gorm.DB) error { return db.Raw("SELECT nothing").Scan(new(int)).Error }},
			{Name: "panics", Run: func(*gorm.DB) error { panic("boom") }},
			{Name: "first", Run: func(db *gorm.DB) error { return db.First(&product{}, 1).Error }},
		},
	})
	ready(t, db)
	before := db.seen.queries.Load()
	db.price(t, 1)
	equal(t, "queries of the first user", db.seen.queries.Load(), before)
	must(t, db.cache.Close())
	for _, want := range []string{"query=broken", "query=panics", "boom", "query=first", "n=3 of=3", "warming has ended"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
}

func TestCloseGoesOnPlainly(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		db.price(t, 1)
		must(t, db.cache.Close())
		exec := db.Exec("UPDATE products SET price = 3 WHERE id = 1")
		must(t, exec.Error)
		equal(t, "price", db.price(t, 1), 3)
		if cfg.Redis != nil {
			must(t, cfg.Redis.Ping(context.Background()).Err())
		}
	})
}

func TestValidateReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	must(t, Config{}.Validate())
	err := Config{
		Name: "a b", Lease: time.Nanosecond, Timeout: time.Hour, OnRedisFailure: 9, MaxResult: -1, FlightTimeout: 1,
		NotFoundTTL: time.Nanosecond, EarlyRefresh: 1000, WarmTimeout: -1,
		L1: L1{TTL: -1, MaxBytes: -1}, L2: L2{TTL: 1000 * time.Hour}, Tables: map[string]Rule{"a.b": {TTL: -1, NotFoundTTL: 1, StaleFor: -1}}, Warm: []WarmQuery{{Name: "x"}},
		Affects: map[string][]string{"a.b": {""}}, Functions: map[string][]string{"f()": nil, "": nil},
	}.Validate()
	for _, field := range []string{"Name is", "Lease is", "Timeout is", "OnRedisFailure is", "MaxResult is", "FlightTimeout is", "L1.TTL is",
		"L1.MaxBytes is", "L2.TTL is", `Tables["a.b"]: the key must`, `Tables["a.b"].TTL is`, "NotFoundTTL is", "EarlyRefresh is", "WarmTimeout is", `Tables["a.b"].NotFoundTTL is`, `Tables["a.b"].StaleFor is`, "Warm[0].Run is",
		`Affects["a.b"]: the key must`, `Affects["a.b"][0] is ""`, `Functions["f()"]: the key must`, `Functions[""]: the key must`} {
		if err == nil || !strings.Contains(err.Error(), "cachehook: "+field) {
			t.Errorf("no fault of %q in:\n%v", field, err)
		}
	}
}

func TestOneCacheServesOneDB(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	db := open(t, dsn, Config{})
	other := open(t, dsn, Config{Disabled: true})
	delete(other.Plugins, "infra:cache")
	if err := other.Use(db.cache); err == nil {
		t.Fatal("a second DB was taken")
	}
}

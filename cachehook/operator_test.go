package cachehook

import (
	"context"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestLogTellsOnceWhyWritesEmptyEverything(t *testing.T) {
	t.Parallel()
	dsn := others(t)
	exec(t, dsn, `CREATE TABLE silent (id bigint)`,
		`CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$`,
		`CREATE TRIGGER t BEFORE UPDATE ON others FOR EACH ROW EXECUTE FUNCTION nothing()`)
	const text = "emptied all that is cached"
	var log logged
	db := open(t, dsn, Config{Logger: log.logger()})
	db.price(t, 1)
	for i := range 3 {
		must(t, db.Exec("UPDATE others SET n = ? WHERE id = 1", i).Error)
		before := db.seen.queries.Load()
		db.price(t, 1)
		equal(t, "queries after it", db.seen.queries.Load(), before+1)
	}
	equal(t, "counted", db.cache.Stats().Emptied, 3)
	lines := log.lines(text)
	if len(lines) != 1 || !strings.Contains(lines[0], "table others has a trigger") {
		t.Fatalf("the log says %q", lines)
	}
	for range 2 {
		must(t, db.cache.InvalidateTables(context.Background(), "productz"))
		must(t, db.Exec("DO $$BEGIN UPDATE products SET price = 5 WHERE id = 1; END$$").Error)
	}
	equal(t, "after what cannot be understood", db.price(t, 1), 5)
	equal(t, "of a name that is not there", len(log.lines("table productz is not known")), 1)
	equal(t, "of a DO", len(log.lines("it is not known what is written by DO")), 1)
	equal(t, "lines", len(log.lines(text)), 3)

	must(t, db.Exec("CREATE TABLE more (id bigint)").Error)
	must(t, db.Exec("INSERT INTO silent VALUES (1)").Error)
	equal(t, "lines after DDL and a write that is understood", len(log.lines(text)), 3)

	var quietly logged
	declared := open(t, dsn, Config{Logger: quietly.logger(), Affects: map[string][]string{"others": nil}})
	declared.price(t, 1)
	must(t, declared.Exec("UPDATE others SET n = 8 WHERE id = 1").Error)
	before := declared.seen.queries.Load()
	declared.price(t, 1)
	equal(t, "queries after a write whose trigger is declared", declared.seen.queries.Load(), before)
	equal(t, "counted", declared.cache.Stats().Emptied, 0)
	uncached := open(t, dsn, Config{Logger: quietly.logger(), Tables: map[string]Rule{}})
	must(t, uncached.Exec("UPDATE others SET n = 7 WHERE id = 1").Error)
	equal(t, "lines where nothing is cached", len(quietly.lines(text)), 0)
}

func TestLogNamesTheStatementThatChangesASession(t *testing.T) {
	t.Parallel()
	var log logged
	db := open(t, database(t), Config{Logger: log.logger()})
	must(t, db.Exec("SET app.secret = 'of nobody'").Error)
	must(t, db.Exec("SET ROLE NONE").Error)
	if lines := log.lines("by=\"SET app.secret"); len(lines) != 1 || strings.Contains(lines[0], "of nobody") {
		t.Errorf("of a setting: %q", log.lines("level=WARN"))
	}
	if lines := log.lines("the role of a session"); len(lines) != 1 || !strings.Contains(lines[0], "by=\"SET role") {
		t.Errorf("of a role: %q", log.lines("level=WARN"))
	}
}

func TestWarmingTellsOfAQueryThatLeavesNothing(t *testing.T) {
	t.Parallel()
	var log logged
	db := open(t, database(t), Config{Logger: log.logger(), Warm: []WarmQuery{
		warmOne(1),
		warmOne(1), // found
		{Name: "locks", Run: func(db *gorm.DB) error { return db.Raw("SELECT price FROM products FOR UPDATE").Scan(new(int64)).Error }},
		{Name: "idle", Run: func(*gorm.DB) error { return nil }},
		warmOne(2),
	}})
	ready(t, db)
	equal(t, "warmed", len(log.lines("cachehook: warmed")), 3)
	equal(t, "left nothing", len(log.lines("left nothing in the cache")), 2)
	equal(t, "in all", len(log.lines("warmed=3 of=5")), 1)
}

// While the database is down what is kept is served, for longer than the catalogue is
// believed without looking; the log does not say otherwise, nor again and again.
func TestWhatIsKeptIsServedWhileTheDatabaseIsDown(t *testing.T) {
	t.Parallel()
	testbed.RequirePostgres(t)
	dsn := database(t)
	proxy := testbed.NewProxy(t, testbed.SharedCluster(t).Primary().Addr())
	var log logged
	var by func(time.Duration)
	through := strings.Replace(dsn, testbed.SharedCluster(t).Primary().Addr(), proxy.Addr(), 1)
	db := openPrepared(t, through, Config{Logger: log.logger(), Tables: map[string]Rule{"products": {TTL: time.Hour}}}, &gorm.Config{}, func(c *Cache) {
		by = pass(c)
		c.catalog.now = c.now
	})
	equal(t, "before", db.price(t, 1), 10)
	proxy.Cut()
	if err := db.First(&product{}, 2).Error; err == nil {
		t.Fatal("what is not kept was read")
	}
	for range 3 {
		by(catalogAge + catalogBackoff)
		equal(t, "served", db.price(t, 1), 10)
		equal(t, "served while the catalogue is asked for", db.price(t, 1), 10)
		eventually(t, "the catalogue is asked for in vain", 30*time.Second, func() bool {
			equal(t, "served", db.price(t, 1), 10)
			return db.cache.catalog.retry.Load() > db.cache.now()
		})
	}
	equal(t, "lines about it", len(log.lines("cannot be read anew: the one that is known serves")), 1)
	db.cache.catalog.forget()
	by(catalogBackoff)
	for range 2 {
		if err := db.First(&product{}, 1).Error; err == nil {
			t.Fatal("served without a catalogue")
		}
	}
	eventually(t, "the log tells", 30*time.Second, func() bool { return len(log.lines("nothing is cached until")) == 1 })
	must(t, proxy.Restore())
	eventually(t, "all is well", 30*time.Second, func() bool {
		by(catalogBackoff)
		return db.First(&product{}, 1).Error == nil && len(log.lines("the catalogue can be read again")) == 1
	})
	equal(t, "warnings", len(log.lines("level=WARN")), 2)
}

func TestPausedServesAndKeepsNothingAndGoesOnInvalidating(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := database(t)
		a := open(t, dsn, cfg)
		others := []*instance{a}
		if cfg.Redis != nil {
			others = append(others, open(t, dsn, cfg))
		}
		ready(t, others...)
		b := others[len(others)-1]
		loads := 0
		load := func() {
			t.Helper()
			_, err := Fetch(ctx, a.cache, "k", time.Hour, nil, func(context.Context) (int, error) { loads++; return loads, nil })
			must(t, err)
		}
		kept := func(i *instance, price int64) {
			t.Helper()
			eventually(t, "it is kept", 30*time.Second, func() bool {
				asked := i.seen.queries.Load()
				equal(t, "price", i.price(t, 1), price)
				return i.seen.queries.Load() == asked
			})
		}
		kept(a, 10)
		kept(b, 10)
		load()
		must(t, a.cache.Set(ctx, "v", []byte("v"), time.Hour))

		a.cache.Pause()
		for range 3 {
			asked := a.seen.queries.Load()
			equal(t, "price", a.price(t, 1), 10)
			a.price(t, 2)
			equal(t, "queries", a.seen.queries.Load(), asked+2)
			load()
		}
		equal(t, "loads", loads, 4)
		if _, found := a.cache.Get(ctx, "v"); found {
			t.Error("a value by hand is served")
		}
		must(t, a.cache.Set(ctx, "w", nil, time.Hour))
		x, err := a.cache.Explain(a.DB, func(tx *gorm.DB) error { return tx.First(&product{}, 1).Error })
		must(t, err)
		equal(t, "explained", x[0].Reason, ReasonPaused)
		equal(t, "stats", a.cache.Stats().Paused, true)
		a.setPrice(t, 1, 20)
		if b != a {
			eventually(t, "the other hears of a write", 30*time.Second, func() bool { return b.price(t, 1) == 20 })
		}

		a.cache.Resume()
		kept(a, 20)
		load()
		equal(t, "loads after it", loads, 4)
		_, found := a.cache.Get(ctx, "w")
		equal(t, "what was set meanwhile", found, false)
		asked := a.seen.queries.Load()
		a.price(t, 2)
		equal(t, "queries for what was read meanwhile", a.seen.queries.Load(), asked+1)
	})
}

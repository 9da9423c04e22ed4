package cachehook

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// What the plugin has not seen and nobody can list: a migration by another tool, which
// changes values, and adds a trigger.
func TestInvalidateAllEmptiesEverythingAndReadsTheCatalogueAnew(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := others(t)
		cfg.Tables = map[string]Rule{"products": {}, "others": {}}
		writer := open(t, dsn, cfg)
		instances := []*instance{writer}
		if cfg.Redis != nil {
			instances = append(instances, open(t, dsn, cfg))
		}
		ready(t, instances...)
		type seen struct {
			row, list, other int64
			own, by          string
		}
		look := func(i *instance) (s seen) {
			t.Helper()
			s.row = i.price(t, 1)
			must(t, i.Raw("SELECT sum(price) FROM products").Scan(&s.list).Error)
			must(t, i.Raw("SELECT n FROM others WHERE id = 1").Scan(&s.other).Error)
			var err error
			s.own, err = Fetch(WithTenant(ctx, "a"), i.cache, "k", time.Hour, []string{"own"}, func(context.Context) (string, error) { return "new", nil })
			must(t, err)
			v, _ := i.cache.Get(ctx, "v")
			s.by = string(v)
			return s
		}
		for _, i := range instances {
			_, err := Fetch(WithTenant(ctx, "a"), i.cache, "k", time.Hour, []string{"own"}, func(context.Context) (string, error) { return "old", nil })
			must(t, err)
			must(t, i.cache.Set(ctx, "v", []byte("old"), time.Hour))
		}
		before := seen{10, 50500, 0, "old", "old"}
		for _, i := range instances {
			eventually(t, "all is kept", 30*time.Second, func() bool {
				asked := i.seen.queries.Load()
				equal(t, "before", look(i), before)
				return i.seen.queries.Load() == asked
			})
		}
		exec(t, dsn, `UPDATE products SET price = price + 1`,
			`CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE others SET n = n + 1; RETURN NULL; END$$`,
			`CREATE TRIGGER t AFTER UPDATE ON products EXECUTE FUNCTION count_writes()`)
		equal(t, "what bypasses the plugin does not show", look(writer), before)
		must(t, writer.cache.InvalidateAll(ctx))
		after := seen{11, 50600, 0, "new", ""}
		for _, i := range instances {
			eventually(t, "after it", 30*time.Second, func() bool { return i == writer || look(i) == after })
			equal(t, "after it", look(i), after)
			equal(t, "the trigger is known", look(i).other, 0)
		}
		writer.setPrice(t, 2, 21)
		equal(t, "what the trigger has changed", look(writer).other, 1)
	})
}

func TestByHandSaysWhatCanNeverBeKept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachMode(t, func(t *testing.T, cfg Config) {
		cfg.MaxResult = 100
		db := open(t, database(t), cfg)
		ready(t, db)
		for want, err := range map[string]error{
			"ttl is -1s: must not be negative":                    db.cache.Set(ctx, "k", nil, -time.Second),
			"has 101 bytes: must be at most 100, by MaxResult":    db.cache.Set(ctx, "k", make([]byte, 101), 0),
			`tag "!server": must not be empty, "*", "!schema", "`: db.cache.Invalidate(ctx, "!server"),
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %s", err, want)
			}
		}
		loads := 0
		for range 3 {
			_, err := Fetch(ctx, db.cache, "gone", -time.Second, nil, func(context.Context) (int, error) { loads++; return 0, nil })
			must(t, err)
		}
		equal(t, "loads by a time that is over", loads, 3)
		over := db.Clauses(TTL(time.Until(time.Now().Add(-time.Minute))))
		for range 3 {
			must(t, over.Session(&gorm.Session{}).First(&product{}, 1).Error)
		}
		equal(t, "queries by a time that is over", db.seen.queries.Load(), 3)
		x, err := db.cache.Explain(over, func(tx *gorm.DB) error { return tx.First(&product{}, 1).Error })
		must(t, err)
		if x[0].Reason != ReasonSkip || !strings.Contains(x[0].Why, "negative") {
			t.Errorf("explained by %s: %s", x[0].Reason, x[0].Why)
		}
	})
}

// A program that invalidates when it ends learns that it was too late.
func TestInvalidateAfterCloseIsAnErrorWhereOthersWouldHaveToHear(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		must(t, db.cache.Close())
		for _, err := range []error{db.cache.Invalidate(ctx, "tag"), db.cache.InvalidateTables(ctx, "products"), db.cache.InvalidateAll(ctx)} {
			if told := errors.Is(err, ErrInvalidation); told != (cfg.Redis != nil) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
}

func TestANilCacheKeepsNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var c *Cache
	must(t, c.Set(ctx, "k", nil, 0))
	if _, found := c.Get(ctx, "k"); found {
		t.Error("found")
	}
	must(t, c.Invalidate(ctx, "tag"))
	must(t, c.InvalidateTables(ctx, "products"))
	must(t, c.InvalidateAll(ctx))
}

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
	if len(lines) != 1 || !strings.Contains(lines[0], "table others has triggers") {
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

// A job that only has to tell, such as one that migrates, needs no database for it.
func TestInvalidateAllNeedsNoDatabase(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rdb, name := client(t)
	dsn := database(t)
	db := open(t, dsn, Config{Redis: rdb, Name: name, Tables: map[string]Rule{"products": {TTL: time.Hour}}})
	ready(t, db)
	equal(t, "before", db.price(t, 1), 10)
	exec(t, dsn, `UPDATE products SET price = 11`)
	equal(t, "what bypasses the plugin does not show", db.price(t, 1), 10)
	job := New(Config{Redis: rdb, Name: name, Logger: quiet})
	must(t, job.InvalidateAll(ctx))
	must(t, job.Close())
	eventually(t, "it shows", 30*time.Second, func() bool { return db.price(t, 1) == 11 })
}

// What the guide says of the pool below GORM, and of a materialized view.
func TestWhatBypassesThePluginShowsOnceItIsTold(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dsn := database(t)
	exec(t, dsn, `CREATE MATERIALIZED VIEW dear AS SELECT * FROM products`)
	eachMode(t, func(t *testing.T, cfg Config) {
		exec(t, dsn, `UPDATE products SET price = 10 WHERE id = 1`, `REFRESH MATERIALIZED VIEW dear`)
		db := open(t, dsn, Config{Redis: cfg.Redis, Name: cfg.Name, Lease: cfg.Lease, Tables: map[string]Rule{"products": {TTL: time.Hour}, "dear": {TTL: time.Hour}}})
		ready(t, db)
		dear := func() (price int64) {
			t.Helper()
			must(t, db.Raw("SELECT price FROM dear WHERE id = 1").Scan(&price).Error)
			return price
		}
		kept := func(table string, read func() int64, want int64) {
			t.Helper()
			eventually(t, table+" is kept", 30*time.Second, func() bool {
				asked := db.seen.queries.Load()
				equal(t, table, read(), want)
				return db.seen.queries.Load() == asked
			})
		}
		price := func() int64 { return db.price(t, 1) }
		kept("products", price, 10)
		pool, err := db.DB.DB()
		must(t, err)
		_, err = pool.Exec(`UPDATE products SET price = 20 WHERE id = 1`)
		must(t, err)
		kept("products", price, 10)
		must(t, db.cache.InvalidateTables(ctx, "products"))
		equal(t, "products, told", price(), 20)

		kept("dear", dear, 10)
		must(t, db.Exec(`REFRESH MATERIALIZED VIEW dear`).Error)
		equal(t, "dear, refreshed through the plugin", dear(), 20)
		kept("dear", dear, 20)
		db.setPrice(t, 1, 30)
		exec(t, dsn, `REFRESH MATERIALIZED VIEW dear`)
		kept("dear", dear, 20)
		must(t, db.cache.InvalidateTables(ctx, "dear"))
		equal(t, "dear, told", dear(), 30)
	})
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

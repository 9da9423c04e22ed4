package cachehook

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"
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
		for n, i := range instances { // each of them knows of the trigger
			i.setPrice(t, 2, 21)
			equal(t, "what the trigger has changed", look(i).other, int64(n)+1)
		}
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
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := database(t)
		exec(t, dsn, `CREATE MATERIALIZED VIEW dear AS SELECT * FROM products`)
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

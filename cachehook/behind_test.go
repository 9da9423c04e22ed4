package cachehook

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gorm.io/gorm"
)

// A trigger that is declared to change its own table is not confined to the rows that
// the statement names.
func TestC07ATriggerMayChangeOtherRowsOfItsTable(t *testing.T) {
	t.Parallel()
	for name, affects := range map[string]map[string][]string{
		"declared":           {"products": {"products"}},
		"by way of another":  {"products": {"log"}, "log": {"products"}},
		"with another table": {"products": {"log", "products"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := database(t)
			exec(t, dsn, `CREATE TABLE log (id bigint)`,
				`CREATE FUNCTION next() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					IF pg_trigger_depth() = 1 THEN UPDATE products SET price = price + 1 WHERE id = 43; END IF;
					RETURN NULL; END $$`,
				`CREATE TRIGGER next AFTER INSERT OR UPDATE OR DELETE ON products FOR EACH ROW EXECUTE FUNCTION next()`)
			db := open(t, dsn, Config{Affects: affects})
			read := func(want int64) {
				t.Helper()
				equal(t, "the other row", db.price(t, 43), want)
				equal(t, "again", db.price(t, 43), want)
			}
			read(430)
			db.setPrice(t, 42, 7)
			read(431)
			must(t, db.Create(&product{ID: 1000}).Error)
			read(432)
			must(t, db.Exec(`INSERT INTO products (id, price) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET price = excluded.price`, 1000, 1).Error)
			read(433)
			must(t, db.Delete(&product{ID: 1000}).Error)
			read(434)
		})
	}
}

// What a table's constraints and domains call may write elsewhere.
func TestC07FunctionsInConstraintsAndDomainsMayWrite(t *testing.T) {
	t.Parallel()
	for name, ddl := range map[string]string{
		"default":           `ALTER TABLE written ADD d bigint DEFAULT noted(1)`,
		"check":             `ALTER TABLE written ADD CHECK (noted(id) > 0)`,
		"check of a domain": `CREATE DOMAIN num AS bigint CHECK (noted(VALUE) > 0); ALTER TABLE written ALTER id TYPE num`,
		"domain of domains": `CREATE DOMAIN num AS bigint CHECK (noted(VALUE) > 0); CREATE DOMAIN id AS num; ALTER TABLE written ALTER id TYPE id`,
		"default of domain": `CREATE DOMAIN num AS bigint DEFAULT noted(1); ALTER TABLE written ADD d num`,
		"policy":            `ALTER TABLE written ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON written WITH CHECK (noted(id) > 0)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := database(t)
			role := fmt.Sprintf("writer%d", schemas.n.Add(1))
			exec(t, dsn, `CREATE TABLE written (id bigint)`, `CREATE TABLE log (id bigint)`,
				`CREATE FUNCTION noted(i bigint) RETURNS bigint LANGUAGE sql AS $$ INSERT INTO log VALUES (i); SELECT 1::bigint $$`,
				`CREATE ROLE `+role, `GRANT ALL ON written, log TO `+role,
				`DO $$ BEGIN EXECUTE 'GRANT USAGE ON SCHEMA ' || current_schema || ' TO `+role+`'; END $$`, ddl)
			db := open(t, dsn, Config{Tables: map[string]Rule{"log": {}, "products": {}}})
			eventually(t, "the catalogue is read", time.Minute, func() bool { return db.cache.catalog.get(context.Background(), true) != nil })
			count := func() string { t.Helper(); return db.text(t, `SELECT count(*)::text FROM log`) }
			equal(t, "before", count(), "0")
			must(t, db.Transaction(func(tx *gorm.DB) error {
				if err := tx.Exec("SET LOCAL ROLE " + role).Error; err != nil { // policies do not hold for a superuser
					return err
				}
				return tx.Exec(`INSERT INTO written (id) VALUES (1)`).Error
			}))
			equal(t, "after", count(), "1")
			db.price(t, 1)
			queries := db.seen.queries.Load()
			must(t, db.Exec(`INSERT INTO log VALUES (2)`).Error)
			db.price(t, 1)
			equal(t, "queries after a write of a table that calls nothing", db.seen.queries.Load(), queries)
		})
	}
}

// A function that changes the schema is DDL, and so is SELECT INTO.
func TestC07SchemaChangedWithoutDDLInTheText(t *testing.T) {
	t.Parallel()
	t.Run("by a function", func(t *testing.T) {
		t.Parallel()
		dsn := database(t)
		exec(t, dsn, `CREATE TABLE parts (id bigint PRIMARY KEY, product_id bigint)`,
			`INSERT INTO parts SELECT i, i FROM generate_series(1, 10) i`,
			`CREATE FUNCTION join_them() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
				ALTER TABLE parts ADD FOREIGN KEY (product_id) REFERENCES products ON DELETE CASCADE; END $$`)
		db := open(t, dsn, Config{Tables: map[string]Rule{"parts": {}, "products": {}}})
		count := func() string { t.Helper(); return db.text(t, `SELECT count(*)::text FROM parts`) }
		equal(t, "before", count(), "10")
		must(t, db.Exec(`SELECT join_them()`).Error)
		equal(t, "no row has gone", count(), "10")
		must(t, db.Exec(`DELETE FROM products WHERE id = 1`).Error)
		equal(t, "after", count(), "9")
	})
	for _, text := range []string{
		`SELECT * INTO TEMP products FROM products WHERE id < 0`,
		`SELECT make_own()`,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			dsn := databaseAlone(t)
			exec(t, dsn, `CREATE FUNCTION make_own() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE products (id bigint); END $$`)
			db := open(t, dsn, Config{})
			pool, err := db.DB.DB()
			must(t, err)
			pool.SetMaxOpenConns(1)
			const count = `SELECT count(*)::text FROM products`
			equal(t, "before", db.text(t, count), "100")
			must(t, db.Exec(text).Error)
			hits := db.cache.Stats().L1Hits
			for range 2 {
				if got := db.text(t, count); got == "100" {
					t.Error("the table is not the session's own")
				}
			}
			equal(t, "hits on a temporary table", db.cache.Stats().L1Hits, hits)
		})
	}
}

package cachehook

import (
	"fmt"
	"testing"

	"gorm.io/gorm"
)

// text reads one value as text.
func (i *instance) text(t testing.TB, query string, args ...any) string {
	t.Helper()
	var s *string
	if err := i.Raw(query, args...).Scan(&s).Error; err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if s == nil {
		return "NULL"
	}
	return *s
}

// TestC07EveryWriteInvalidatesWhatItChanges runs each write and compares what is
// served with what the database says.
func TestC07EveryWriteInvalidatesWhatItChanges(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn,
		`CREATE TABLE parents (id bigint PRIMARY KEY, n bigint DEFAULT 0)`,
		`CREATE TABLE children (id bigint PRIMARY KEY, parent_id bigint REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE)`,
		`CREATE TABLE grandchildren (id bigint PRIMARY KEY, child_id bigint REFERENCES children ON DELETE SET NULL)`,
		`CREATE TABLE log (id bigserial PRIMARY KEY, what text)`,
		`CREATE TABLE audited (id bigint PRIMARY KEY)`,
		`CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (what) VALUES ('x'); RETURN NULL; END $$`,
		`CREATE TRIGGER audit AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION audit()`,
		`CREATE FUNCTION touch() RETURNS bigint LANGUAGE sql AS $$ UPDATE products SET price = price + 1 WHERE id = 1 RETURNING price $$`,
		`CREATE PROCEDURE touch_all() LANGUAGE sql AS $$ UPDATE products SET price = price + 1 $$`,
		`CREATE TABLE parted (id bigint, v bigint) PARTITION BY RANGE (id)`,
		`CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)`,
		`CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200)`,
		`CREATE VIEW cheap AS SELECT id, price FROM products WHERE price < 500`,
		`CREATE VIEW cheaper AS SELECT * FROM cheap WHERE price < 100`,
		`CREATE MATERIALIZED VIEW stale AS SELECT sum(price) AS total FROM products`,
		`INSERT INTO parents SELECT i FROM generate_series(1, 10) i`,
		`INSERT INTO children SELECT i, i FROM generate_series(1, 10) i`,
		`INSERT INTO grandchildren SELECT i, i FROM generate_series(1, 10) i`,
		`INSERT INTO parted VALUES (1, 1), (101, 1)`,
	)
	reads := []string{
		`SELECT sum(price)::text FROM products`,
		`SELECT count(*)::text FROM products`,
		`SELECT count(*)::text || sum(id) FROM parents`,
		`SELECT count(*)::text || coalesce(sum(parent_id), 0) FROM children`,
		`SELECT count(child_id)::text FROM grandchildren`,
		`SELECT count(*)::text FROM log`,
		`SELECT count(*)::text FROM parents p JOIN children c ON c.parent_id = p.id`,
		`SELECT count(*)::text FROM parents p WHERE EXISTS (SELECT 1 FROM children c WHERE c.parent_id = p.id)`,
		`WITH c AS (SELECT * FROM children) SELECT count(*)::text FROM c`,
		`SELECT count(*)::text FROM (SELECT id FROM children UNION SELECT id FROM grandchildren) u`,
		`SELECT sum(v)::text FROM parted`,
		`SELECT sum(v)::text FROM parted_1`,
		`SELECT sum(price)::text FROM cheap`,
		`SELECT sum(price)::text FROM cheaper`,
		`SELECT total::text FROM stale`,
	}
	writes := []string{
		`UPDATE products SET price = price + 1 WHERE id = 3`,
		`/* c */ WITH w AS (UPDATE products SET price = price + 1 WHERE id = 4 RETURNING id) SELECT count(*) FROM w`,
		`INSERT INTO products VALUES (1, 'x', 0) ON CONFLICT (id) DO UPDATE SET price = products.price + 1`,
		`MERGE INTO products p USING (VALUES (5)) v(id) ON p.id = v.id WHEN MATCHED THEN UPDATE SET price = price + 1`,
		`SELECT touch()`,
		`CALL touch_all()`,
		`DO $$ BEGIN UPDATE products SET price = price + 1; END $$`,
		`UPDATE cheap SET price = price + 1 WHERE id = 2`,
		`REFRESH MATERIALIZED VIEW stale`,
		`UPDATE parents SET id = id + 1000 WHERE id = 10`,
		`DELETE FROM parents WHERE id = 1`,
		`DELETE FROM children WHERE id = 2`,
		`INSERT INTO audited VALUES (1)`,
		`UPDATE parted_1 SET v = v + 1`,
		`UPDATE parted SET v = v + 1`,
		`TRUNCATE grandchildren`,
		`TRUNCATE parents CASCADE`,
		`CREATE OR REPLACE VIEW cheap AS SELECT id, price FROM products WHERE price < 50`,
		`ALTER TABLE products DISABLE TRIGGER ALL`,
		`DELETE FROM products`,
		`CREATE TABLE made AS SELECT 1 AS id`,
	}
	tables := map[string]Rule{}
	for _, name := range []string{"products", "parents", "children", "grandchildren", "log", "parted", "parted_1", "cheap", "cheaper", "stale"} {
		tables[name] = Rule{}
	}
	db, plain := open(t, dsn, Config{Tables: tables}), open(t, dsn, Config{Disabled: true})
	hits := 0
	check := func(after string) {
		t.Helper()
		for _, q := range reads {
			before := db.cache.Stats().L1Hits
			equal(t, after+": "+q, db.text(t, q), plain.text(t, q))
			hits += int(db.cache.Stats().L1Hits - before)
		}
	}
	check("at first")
	hits = 0
	check("again")
	equal(t, "hits when nothing was written", hits, len(reads))
	for _, w := range writes {
		check("before")
		must(t, db.Exec(w).Error)
		check(w)
		check(w + ", again")
	}
	must(t, db.Transaction(func(tx *gorm.DB) error {
		return tx.Exec(`INSERT INTO products VALUES (1, 'x', 7)`).Error
	}))
	check("transaction")
}

func TestWritesLeaveOtherTablesCached(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE others (id bigint PRIMARY KEY, n bigint)`, `INSERT INTO others VALUES (1, 1)`)
	db := open(t, dsn, Config{})
	db.price(t, 1)
	must(t, db.Exec(`UPDATE others SET n = n + 1`).Error)
	before := db.seen.queries.Load()
	db.price(t, 1)
	equal(t, "queries", db.seen.queries.Load(), before)
}

func TestC10NeverCached(t *testing.T) {
	t.Parallel()
	dsn, reader := database(t), fmt.Sprintf("reader%d", schemas.n.Add(1))
	exec(t, dsn,
		`CREATE VIEW fresh AS SELECT id, now() AS at FROM products`,
		`CREATE VIEW named AS SELECT relname FROM pg_class`,
		`CREATE TABLE secret (id bigint)`, `ALTER TABLE secret ENABLE ROW LEVEL SECURITY`,
		`CREATE VIEW secrets AS SELECT id FROM secret`, `CREATE ROLE `+reader, `ALTER VIEW secrets OWNER TO `+reader, `GRANT SELECT ON secret TO `+reader,
		`CREATE FUNCTION mine() RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT count(*) FROM products $$`,
	)
	db := open(t, dsn, Config{})
	for _, q := range []string{
		`SELECT now()::text FROM products LIMIT 1`,
		`SELECT random()::text FROM products LIMIT 1`,
		`SELECT price::text FROM products WHERE id = 1 FOR UPDATE`,
		`SELECT count(*)::text FROM pg_class`,
		`SELECT count(*)::text FROM pg_catalog.pg_class`,
		`SELECT count(*)::text FROM information_schema.tables`,
		`SELECT count(*)::text FROM products TABLESAMPLE BERNOULLI (50)`,
		`SELECT at::text FROM fresh LIMIT 1`,
		`SELECT count(*)::text FROM named`,
		`SELECT count(*)::text FROM secret`,
		`SELECT count(*)::text FROM secrets`,
		`SELECT mine()::text FROM products LIMIT 1`,
		`SELECT current_user::text FROM products LIMIT 1`,
		`SELECT 1::text`,
	} {
		for range 2 {
			var s string
			must(t, db.Clauses(TTL(0)).Raw(q).Scan(&s).Error)
		}
		if st := db.cache.Stats(); st.Fills+st.L1Hits != 0 {
			t.Fatalf("%s: cached", q)
		}
	}
	must(t, db.Connection(func(tx *gorm.DB) error {
		must(t, tx.Exec(`CREATE TEMP TABLE brief AS SELECT 1 AS id`).Error)
		var n int64
		for range 2 {
			must(t, tx.Clauses(TTL(0)).Table("brief").Count(&n).Error)
		}
		return nil
	}))
	equal(t, "fills on a pinned connection", db.cache.Stats().Fills, 0)
}

func TestC09SameNameInTwoSchemas(t *testing.T) {
	t.Parallel()
	dsnA, dsnB := database(t), database(t)
	exec(t, dsnB, `UPDATE products SET price = 5 WHERE id = 1`)
	rdb, name := client(t)
	a, b := open(t, dsnA, Config{Redis: rdb, Name: name}), open(t, dsnB, Config{Redis: rdb, Name: name})
	ready(t, a, b)
	for range 3 {
		equal(t, "a", a.price(t, 1), 10)
		equal(t, "b", b.price(t, 1), 5)
	}
	if a.cache.Stats().L1Hits == 0 {
		t.Fatal("not cached")
	}
	// Once a session has its own search path a bare name is not cached.
	must(t, a.Exec(`SET search_path = public`).Error)
	before := a.cache.Stats()
	for range 3 {
		var n int64
		_ = a.Table("products").Count(&n).Error
	}
	after := a.cache.Stats()
	equal(t, "hits and fills afterwards", after.L1Hits+after.L2Hits+after.Fills, before.L1Hits+before.L2Hits+before.Fills)
}

func TestDeclaredEdges(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE a (id bigint)`, `CREATE TABLE b (id bigint)`, `CREATE TABLE c (id bigint)`)
	tables := map[string]Rule{"a": {}, "b": {}, "c": {}, "products": {}}
	db := open(t, dsn, Config{Tables: tables, Affects: map[string][]string{"A": {"b"}, "b": {"c", "a"}}})
	count := func(table string) (queried bool) {
		before := db.seen.queries.Load()
		var n int64
		must(t, db.Table(table).Count(&n).Error)
		return db.seen.queries.Load() > before
	}
	for _, table := range []string{"a", "b", "c", "products"} {
		count(table)
	}
	must(t, db.Exec(`INSERT INTO a VALUES (1)`).Error)
	for table, want := range map[string]bool{"a": true, "b": true, "c": true, "products": false} {
		equal(t, fmt.Sprintf("%s is read again", table), count(table), want)
	}
}

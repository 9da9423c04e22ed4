package cachehook

import "testing"

// withFunctions makes functions that read the table inventory, and ways to call
// them that no text shows as a call.
func withFunctions(t *testing.T) string {
	dsn := database(t)
	exec(t, dsn,
		`CREATE TABLE inventory (product_id bigint PRIMARY KEY, n bigint)`,
		`INSERT INTO inventory SELECT i, i FROM generate_series(1, 100) i`,
		`CREATE FUNCTION stock(products) RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT n FROM inventory WHERE product_id = $1.id $$`,
		`CREATE FUNCTION label(products) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $1.name || '!' $$`,
		`CREATE FUNCTION upper(products) RETURNS text STABLE LANGUAGE sql AS $$ SELECT n::text FROM inventory WHERE product_id = $1.id $$`,
		`CREATE FUNCTION doubled(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$ SELECT $1 * 2 $$`,
		`CREATE FUNCTION any_stock(record) RETURNS bigint STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT n FROM inventory WHERE product_id = 1); END $$`,
		`CREATE FUNCTION plus_stock(bigint, text) RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT $1 + n FROM inventory WHERE product_id = 1 $$`,
		`CREATE OPERATOR +@+ (LEFTARG = bigint, RIGHTARG = text, FUNCTION = plus_stock)`,
		`CREATE TYPE cents AS (n bigint)`,
		`CREATE FUNCTION to_cents(bigint) RETURNS cents STABLE LANGUAGE sql AS $$ SELECT ROW(n)::cents FROM inventory WHERE product_id = 1 $$`,
		`CREATE CAST (bigint AS cents) WITH FUNCTION to_cents(bigint)`,
		`CREATE VIEW added AS SELECT id, price +@+ 'x' AS sum FROM products`,
		`CREATE VIEW stocked AS SELECT id, products.stock AS stock FROM products`,
		`CREATE TABLE goods (id bigint, stock bigint)`, `INSERT INTO goods VALUES (1, 7)`,
		`CREATE TABLE parted (id bigint, v bigint) PARTITION BY RANGE (id)`,
		`CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)`,
		`INSERT INTO parted VALUES (1, 1)`,
		`CREATE FUNCTION weight(parted) RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT n FROM inventory WHERE product_id = $1.id $$`,
		`CREATE FUNCTION sell(products) RETURNS bigint VOLATILE LANGUAGE sql AS $$ UPDATE inventory SET n = n - 1 WHERE product_id = $1.id RETURNING n $$`,
		`CREATE FUNCTION sell_default() RETURNS bigint VOLATILE LANGUAGE sql AS $$ UPDATE inventory SET n = n - 1 WHERE product_id = 1 RETURNING n $$`,
		`CREATE TABLE sales (id bigserial, left_over bigint DEFAULT sell_default())`,
	)
	return dsn
}

var functionTables = map[string]Rule{"products": {}, "inventory": {}, "goods": {}, "parted": {}, "parted_1": {}, "added": {}, "stocked": {}}

// caches tells whether a statement of one value is served at the second time.
func (i *instance) caches(t *testing.T, query string) bool {
	t.Helper()
	i.text(t, query)
	before := i.seen.queries.Load()
	i.text(t, query)
	return i.seen.queries.Load() == before
}

func TestC08FunctionsThatReadAreNotCachedUndeclared(t *testing.T) {
	t.Parallel()
	db := open(t, withFunctions(t), Config{Tables: functionTables})
	for query, want := range map[string]bool{
		`SELECT products.stock::text FROM products WHERE id = 1`:                  false,
		`SELECT p."stock"::text FROM products p WHERE p.id = 1`:                   false,
		`SELECT stock(p)::text FROM products p WHERE id = 1`:                      false,
		`SELECT (x.p).stock::text FROM (SELECT p FROM products p WHERE id = 1) x`: false,
		`SELECT upper(products) FROM products WHERE id = 1`:                       false,
		`SELECT g.any_stock::text FROM goods g`:                                   false,
		`SELECT (price +@+ 'x')::text FROM products WHERE id = 1`:                 false,
		`SELECT (price OPERATOR(+@+) 'x')::text FROM products WHERE id = 1`:       false,
		`SELECT (price::cents).n::text FROM products WHERE id = 1`:                false,
		`SELECT sum::text FROM added WHERE id = 1`:                                false,
		`SELECT stock::text FROM stocked WHERE id = 1`:                            false,
		`SELECT parted.weight::text FROM parted`:                                  false,
		`SELECT parted_1.weight::text FROM parted_1`:                              false,

		`SELECT products.label FROM products WHERE id = 1`:       true,
		`SELECT doubled(price)::text FROM products WHERE id = 1`: true,
		`SELECT stock::text FROM goods`:                          true,
		`SELECT (price + 1)::text FROM products WHERE id = 1`:    true,
	} {
		if got := db.caches(t, query); got != want {
			t.Errorf("%s: cached %v", query, got)
		}
	}
}

// A table's column of a row's type lets functions of that row be called on it.
func TestC08FunctionsOfAColumnThatIsARow(t *testing.T) {
	t.Parallel()
	dsn := withFunctions(t)
	exec(t, dsn, `CREATE TABLE boxes (p products)`, `INSERT INTO boxes SELECT p FROM products p WHERE id = 1`)
	db := open(t, dsn, Config{Tables: map[string]Rule{"boxes": {}}})
	equal(t, "a function of the column's row", db.caches(t, `SELECT (p).stock::text FROM boxes`), false)
	equal(t, "a field of the row", db.caches(t, `SELECT (p).price::text FROM boxes`), true)
}

func TestC08DeclaredFunctionsCarryTheirTables(t *testing.T) {
	t.Parallel()
	dsn := withFunctions(t)
	db := open(t, dsn, Config{Tables: functionTables, Functions: map[string][]string{
		"Stock": {"inventory"}, "plus_stock": {"inventory"}, "to_cents": {"inventory"}, "weight": {"inventory"},
	}})
	reads := []string{
		`SELECT products.stock::text FROM products WHERE id = 1`,
		`SELECT stock(p)::text FROM products p WHERE id = 1`,
		`SELECT (price +@+ 'x')::text FROM products WHERE id = 1`,
		`SELECT (price::cents).n::text FROM products WHERE id = 1`,
		`SELECT sum::text FROM added WHERE id = 1`,
		`SELECT stock::text FROM stocked WHERE id = 1`,
		`SELECT parted.weight::text FROM parted`,
	}
	plain := open(t, dsn, Config{Disabled: true})
	for _, q := range reads {
		equal(t, "cached: "+q, db.caches(t, q), true)
	}
	must(t, db.Exec(`UPDATE inventory SET n = n + 100`).Error)
	for _, q := range reads {
		equal(t, q, db.text(t, q), plain.text(t, q))
	}
}

// A function that writes is a write, however it is called.
func TestC07HiddenFunctionsThatWrite(t *testing.T) {
	t.Parallel()
	dsn := withFunctions(t)
	exec(t, dsn,
		`CREATE FUNCTION minus(bigint, text) RETURNS bigint VOLATILE LANGUAGE sql AS $$ UPDATE inventory SET n = n - 1 WHERE product_id = 1 RETURNING n $$`,
		`CREATE OPERATOR -@- (LEFTARG = bigint, RIGHTARG = text, FUNCTION = minus)`)
	db, plain := open(t, dsn, Config{Tables: functionTables}), open(t, dsn, Config{Disabled: true})
	const read = `SELECT n::text FROM inventory WHERE product_id = 1`
	for _, write := range []string{
		`SELECT products.sell FROM products WHERE id = 1`,
		`SELECT p.sell FROM products AS p WHERE id = 1`,
		`SELECT price -@- 'x' FROM products WHERE id = 1`,
		`UPDATE goods SET stock = products.sell FROM products WHERE products.id = 1`,
		`UPDATE goods SET stock = stock -@- 'x'`,
		`INSERT INTO sales DEFAULT VALUES`,
	} {
		equal(t, "cached", db.caches(t, read), true)
		before := db.text(t, read)
		must(t, db.Exec(write).Error)
		after := plain.text(t, read)
		if before == after {
			t.Fatalf("%s changes nothing", write)
		}
		equal(t, write, db.text(t, read), after)
	}
}

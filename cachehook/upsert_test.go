package cachehook

import (
	"fmt"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorminfra/infra/internal/sqltext"
)

// upsertsByKey are writes of rows id, which is there, and id+1000, which is not;
// they leave the price 7 in both, or in the new one alone.
var upsertsByKey = map[string]func(db *gorm.DB, id int64) error{
	"Save of a new row, then of one": func(db *gorm.DB, id int64) error {
		if err := db.Save(&product{ID: id + 1000, Price: 7}).Error; err != nil {
			return err
		}
		return db.Save(&product{ID: id, Price: 7}).Error
	},
	"Save of several": func(db *gorm.DB, id int64) error {
		return db.Save(&[]product{{ID: id, Price: 7}, {ID: id + 1000, Price: 7}}).Error
	},
	"UpdateAll": func(db *gorm.DB, id int64) error {
		return db.Clauses(clause.OnConflict{UpdateAll: true}).Create(&[]product{{ID: id, Price: 7}, {ID: id + 1000, Price: 7}}).Error
	},
	"DoUpdates in a transaction": func(db *gorm.DB, id int64) error {
		return db.Transaction(func(tx *gorm.DB) error {
			for _, id := range []int64{id, id + 1000} {
				if err := tx.Clauses(clause.OnConflict{
					Columns: []clause.Column{{Name: "id"}}, DoUpdates: clause.AssignmentColumns([]string{"price"}),
				}).Create(&product{ID: id, Price: 7}).Error; err != nil {
					return err
				}
			}
			return nil
		})
	},
	"DoNothing": func(db *gorm.DB, id int64) error {
		return db.Clauses(clause.OnConflict{DoNothing: true}).Create(&[]product{{ID: id, Price: 7}, {ID: id + 1000, Price: 7}}).Error
	},
	"Create": func(db *gorm.DB, id int64) error { return db.Create(&product{ID: id + 1000, Price: 7}).Error },
	"raw": func(db *gorm.DB, id int64) error {
		return db.Exec("INSERT INTO products AS p (price, id) VALUES (?, ?), (7, ?) ON CONFLICT (id) DO UPDATE SET (price, name) = (7, p.name) WHERE p.id > 0 RETURNING id",
			7, uint16(id), fmt.Sprint(id+1000)).Error
	},
}

func TestC07AnUpsertByKeyLeavesOtherRowsCached(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := database(t)
		db, plain := open(t, dsn, cfg), open(t, dsn, Config{Disabled: true})
		ready(t, db)
		sum := func(db *instance) string { return db.text(t, `SELECT sum(price)::text FROM products`) }
		id := int64(0)
		for name, write := range upsertsByKey {
			id += 2
			for _, read := range lookups {
				db.served(t, read, id)
				db.served(t, read, id+1)
				db.served(t, read, id+1000)
			}
			sum(db)
			must(t, write(db.DB, id))
			equal(t, name+": the sum", sum(db), sum(plain))
			for what, read := range lookups {
				if _, served := db.served(t, read, id+1); !served {
					t.Errorf("%s, then %s of another row: not served", name, what)
				}
				for _, id := range []int64{id, id + 1000} {
					got, _ := db.served(t, read, id)
					want, err := read(plain.DB, id)
					must(t, err)
					equal(t, fmt.Sprintf("%s, then %s of row %d", name, what, id), got, want)
				}
			}
		}
	})
}

// Each of these names another key than that of the row which it changes, or does
// more than its key tells.
func TestC07WhatLooksLikeAnUpsertByKeyEmptiesTheTable(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ddl     []string
		affects map[string][]string
		write   string
		args    []any
		read    string // "": the price of goods
		key     []any  // nil: 1
	}{
		"another unique key":        {write: `INSERT INTO goods (id, sku, price) VALUES (?, 'one', 7) ON CONFLICT (sku) DO UPDATE SET price = 7`, args: []any{50}},
		"a constraint by name":      {write: `INSERT INTO goods (id, sku, price) VALUES (?, 'one', 7) ON CONFLICT ON CONSTRAINT goods_sku_key DO UPDATE SET price = 7`, args: []any{50}},
		"a literal":                 {write: `INSERT INTO goods (id, price) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET price = excluded.price`, args: []any{7}},
		"an expression":             {write: `INSERT INTO goods (id, price) VALUES (? - 1, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{2}},
		"a cast":                    {write: `INSERT INTO goods (id, price) VALUES (?::int::bool::int, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{2}},
		"a query":                   {write: `INSERT INTO goods (id, price) SELECT 1, ? ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{7}},
		"one row that is not known": {write: `INSERT INTO goods (id, price) VALUES (?, 7), (1, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{2}},
		"no list of columns":        {ddl: []string{`CREATE TABLE t (price bigint, id bigint PRIMARY KEY)`}, write: `INSERT INTO t VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{7}, read: `SELECT price::text FROM t WHERE id = ?`},
		"another write besides":     {write: `WITH w AS (UPDATE goods SET price = 7 WHERE id = 1) INSERT INTO goods (id) VALUES (?) ON CONFLICT (id) DO UPDATE SET price = 5`, args: []any{2}},
		"a sequence":                {ddl: []string{`SELECT setval('goods_id_seq', 1, false)`}, write: `INSERT INTO goods (price) VALUES (?) ON CONFLICT (id) DO UPDATE SET price = excluded.price`, args: []any{7}},
		"a sequence, by OVERRIDING": {ddl: []string{`SELECT setval('goods_id_seq', 1, false)`}, write: `INSERT INTO goods (id, price) OVERRIDING USER VALUE VALUES (?, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{2}},
		"a sequence, by DEFAULT":    {ddl: []string{`SELECT setval('goods_id_seq', 1, false)`}, write: `INSERT INTO goods (id, price) VALUES (DEFAULT, ?) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{7}},
		"the key is assigned":       {write: `INSERT INTO goods (id, price) VALUES (?, 7) ON CONFLICT (id) DO UPDATE SET id = 1 + excluded.id - excluded.id, price = 7`, args: []any{1}},
		"an updatable view":         {ddl: []string{`CREATE VIEW v AS SELECT id + 0 AS odd, id, price FROM goods`}, write: `INSERT INTO v (id, price) VALUES (?, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{1}},
		"an action of a foreign key": {
			ddl:   []string{`CREATE TABLE children (id bigint PRIMARY KEY, sku text REFERENCES goods (sku) ON UPDATE CASCADE)`, `INSERT INTO children VALUES (1, 'one')`},
			write: `INSERT INTO goods (id, sku) VALUES (?, '7') ON CONFLICT (id) DO UPDATE SET sku = excluded.sku`, args: []any{1},
			read: `SELECT sku FROM children WHERE id = ?`,
		},
		"a trigger gives the key": {
			ddl: []string{`CREATE FUNCTION one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id = 1; RETURN NEW; END $$`,
				`CREATE TRIGGER one BEFORE INSERT ON goods FOR EACH ROW EXECUTE FUNCTION one()`},
			affects: map[string][]string{"goods": nil},
			write:   `INSERT INTO goods (id, price) VALUES (?, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{50},
		},
		"an index of another collation": {
			ddl: []string{`CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`, `CREATE TABLE t (id text COLLATE "C" PRIMARY KEY, price bigint)`,
				`CREATE UNIQUE INDEX ON t (id COLLATE loose) INCLUDE (price)`, `INSERT INTO t VALUES ('1', 10), ('a', 10)`},
			write: `INSERT INTO t (id, price) VALUES (?, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{"A"},
			read: `SELECT price::text FROM t WHERE id = ?`, key: []any{"a"},
		},
		"a part of the key": {
			ddl:   []string{`CREATE TABLE t (id bigint UNIQUE, b bigint, price bigint, PRIMARY KEY (id, b))`, `INSERT INTO t VALUES (1, 1, 10)`},
			write: `INSERT INTO t (id, b, price) VALUES (?, ?, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{1, 2},
			read: `SELECT price::text FROM t WHERE id = ? AND b = ?`, key: []any{1, 1},
		},
		"a type that drops blanks": {
			ddl:   []string{`CREATE TABLE t (id varchar(1) PRIMARY KEY, price bigint)`, `INSERT INTO t VALUES ('1', 10)`},
			write: `INSERT INTO t (id, price) VALUES (?, 7) ON CONFLICT (id) DO UPDATE SET price = 7`, args: []any{"1 "},
			read: `SELECT price::text FROM t WHERE id = ?`, key: []any{"1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := database(t)
			exec(t, dsn, `CREATE TABLE goods (id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, sku text UNIQUE, price bigint)`, `INSERT INTO goods VALUES (1, 'one', 10)`)
			exec(t, dsn, test.ddl...)
			db := open(t, dsn, Config{Tables: map[string]Rule{"goods": {}, "children": {}, "t": {}}, Affects: test.affects})
			plain := open(t, dsn, Config{Disabled: true})
			q, args := test.read, test.key
			if q == "" {
				q = `SELECT price::text FROM goods WHERE id = ?`
			}
			if args == nil {
				args = []any{1}
			}
			before := db.text(t, q, args...)
			hits := db.cache.Stats().L1Hits
			equal(t, "again", db.text(t, q, args...), before)
			equal(t, "hits", db.cache.Stats().L1Hits, hits+1)
			must(t, db.Exec(test.write, test.args...).Error)
			want := plain.text(t, q, args...)
			if want == before {
				t.Fatal("the write has changed nothing that is read")
			}
			equal(t, "after", db.text(t, q, args...), want)
		})
	}
}

// Which texts name all rows that they write.
func TestC07UpsertsByKey(t *testing.T) {
	t.Parallel()
	goods := &relation{schema: "public", name: "goods", root: tableTag("public.goods"), key: []keyColumn{{"a", keyInteger}, {"b", keyText}}}
	c := &catalog{relations: map[string][]*relation{"goods": {goods}}}
	for text, want := range map[string]string{
		`INSERT INTO goods (b, c, a) VALUES ($1, $2, $3) ON CONFLICT (b, a) DO UPDATE SET c = 1`:          "[1:3,2:'x]",
		`INSERT INTO goods (a, b) VALUES ($3, $1), ($4, $2) ON CONFLICT (a, b) DO UPDATE SET c = 1`:       "[1:3,2:'x 1:4,2:'y]",
		`INSERT INTO goods (a, b) VALUES ($3, $1) ON CONFLICT (a, b) DO UPDATE SET b = excluded.b`:        "",
		`INSERT INTO goods (a, b) VALUES ($3, $1) ON CONFLICT (a) DO UPDATE SET c = 1`:                    "",
		`INSERT INTO goods (a, b) VALUES ($3, $1) ON CONFLICT (a, a) DO UPDATE SET c = 1`:                 "",
		`INSERT INTO goods (a, b) VALUES ($3, $1) ON CONFLICT (a, b) DO NOTHING`:                          "",
		`INSERT INTO goods (a, b, c) VALUES ($3, $1, $2) ON CONFLICT (a, b, c) DO UPDATE SET d = 1`:       "",
		`INSERT INTO goods (a, b) VALUES ($3, $1)`:                                                        "",
		`INSERT INTO goods (a, b) VALUES ($1, $2) ON CONFLICT (a, b) DO UPDATE SET c = 1`:                 "", // "x" is no integer
		`INSERT OR REPLACE INTO goods (a, b) VALUES (?, ?) ON CONFLICT (a, b) DO UPDATE SET c = 1`:        "",
		`UPDATE OR REPLACE goods SET c = 1 WHERE a = $3 AND b = $1`:                                       "",
		`UPDATE goods SET c = 1 WHERE a = $3 AND b = $1`:                                                  "[1:3,2:'x]",
		`UPDATE goods SET c = 1 WHERE "A" = $3 AND b = $1`:                                                "",
		`INSERT INTO goods ("A", a, b) VALUES ($4, $3, $1) ON CONFLICT ("A", b) DO UPDATE SET c = 1`:      "",
		`EXPLAIN ANALYZE INSERT INTO goods (a, b) VALUES ($3, $1) ON CONFLICT (a, b) DO UPDATE SET c = 1`: "",
	} {
		st, got := sqltext.Analyze(text), ""
		if r := c.writtenByKey(st); r != nil {
			if keys, ok := r.rowsWritten(st, []any{"x", "y", 3, 4}); ok {
				got = fmt.Sprint(keys)
			}
		}
		equal(t, text, got, want)
	}
	for text, want := range map[string]bool{
		`CREATE TABLE t (id INTEGER PRIMARY KEY, sku TEXT UNIQUE ON CONFLICT REPLACE)`:              true,
		`create table t (id integer primary key, sku text, unique (sku) on conflict /* */ replace)`: true,
		`CREATE TABLE t (id INTEGER PRIMARY KEY, sku TEXT UNIQUE ON CONFLICT ABORT)`:                false,
	} {
		equal(t, text, sqliteReplaces.MatchString(text), want)
	}
}

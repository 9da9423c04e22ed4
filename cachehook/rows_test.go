package cachehook

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// lookups are reads by key of one row each, and of several.
var lookups = map[string]func(db *gorm.DB, id int64) (string, error){
	"First": func(db *gorm.DB, id int64) (string, error) {
		var p product
		err := db.First(&p, id).Error
		return fmt.Sprint(p), ignoreNotFound(err)
	},
	"Take": func(db *gorm.DB, id int64) (string, error) {
		p := product{ID: id}
		err := db.Take(&p).Error
		return fmt.Sprint(p), ignoreNotFound(err)
	},
	"Find where": func(db *gorm.DB, id int64) (string, error) {
		var ps []product
		err := db.Where("id = ? AND price > -5", id).Find(&ps).Error
		return fmt.Sprint(ps), err
	},
	"Find in": func(db *gorm.DB, id int64) (string, error) {
		var ps []product
		err := db.Find(&ps, []int64{id, id}).Error
		return fmt.Sprint(ps), err
	},
	"Raw": func(db *gorm.DB, id int64) (string, error) {
		var price *int64
		err := db.Raw("SELECT price FROM products p WHERE p.id = ?", uint16(id)).Scan(&price).Error
		return fmt.Sprintf("%v", price != nil), err
	},
	"map": func(db *gorm.DB, id int64) (string, error) {
		m := map[string]any{}
		err := db.Model(&product{}).Where("id = ?", id).Take(&m).Error
		return fmt.Sprint(m), ignoreNotFound(err)
	},
}

func ignoreNotFound(err error) error {
	if err == gorm.ErrRecordNotFound { //nolint:errorlint // as GORM gives it
		return nil
	}
	return err
}

// writesByKey are writes that touch row id alone.
var writesByKey = map[string]func(db *gorm.DB, id int64) error{
	"Update on a model":  func(db *gorm.DB, id int64) error { return db.Model(&product{ID: id}).Update("price", 77).Error },
	"Updates on a model": func(db *gorm.DB, id int64) error { return db.Model(&product{ID: id}).Updates(product{Price: 78}).Error },
	"Update where": func(db *gorm.DB, id int64) error {
		return db.Model(&product{}).Where("id = ?", id).Update("price", 79).Error
	},
	"Save":            func(db *gorm.DB, id int64) error { return db.Save(&product{ID: id, Name: "s", Price: 80}).Error },
	"Delete by model": func(db *gorm.DB, id int64) error { return db.Delete(&product{ID: id}).Error },
	"Delete by key":   func(db *gorm.DB, id int64) error { return db.Delete(&product{}, id).Error },
	"raw UPDATE": func(db *gorm.DB, id int64) error {
		return db.Exec("UPDATE products SET price = 81 WHERE id = ?", int32(id)).Error
	},
	"raw UPDATE, as text": func(db *gorm.DB, id int64) error {
		return db.Exec("UPDATE products SET price = 81 WHERE id IN (?)", []string{fmt.Sprint(id)}).Error
	},
}

// served tells whether a look-up reaches the database, and its answer.
func (i *instance) served(t *testing.T, read func(*gorm.DB, int64) (string, error), id int64) (answer string, served bool) {
	t.Helper()
	before := i.seen.queries.Load()
	answer, err := read(i.DB, id)
	must(t, err)
	return answer, i.seen.queries.Load() == before
}

func TestC07AWriteByKeyLeavesOtherRowsCached(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := database(t)
		db, plain := open(t, dsn, cfg), open(t, dsn, Config{Disabled: true})
		ready(t, db)
		id := int64(0)
		for name, write := range writesByKey {
			id += 2
			for _, read := range lookups {
				db.served(t, read, id)
				db.served(t, read, id+1)
			}
			must(t, write(db.DB, id))
			for what, read := range lookups {
				got, served := db.served(t, read, id)
				want, err := read(plain.DB, id)
				must(t, err)
				if got != want || served && what != "Raw" {
					t.Errorf("%s, then %s of the row: %s, served %v, want %s", name, what, got, served, want)
				}
				if _, served := db.served(t, read, id+1); !served {
					t.Errorf("%s, then %s of another row: not served", name, what)
				}
			}
		}
	})
}

// What reads more than rows by key is emptied by each write.
func TestC07AWriteByKeyEmptiesWhatReadsMore(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	db, plain := open(t, dsn, Config{}), open(t, dsn, Config{Disabled: true})
	reads := []string{
		`SELECT sum(price)::text FROM products`,
		`SELECT sum(price)::text FROM products WHERE id IN (1, 2, 3)`,
		`SELECT (SELECT sum(price) FROM products)::text FROM products WHERE id = ?`,
		`SELECT p.price::text FROM products p JOIN products q ON q.id = p.id + 1 WHERE p.id = ?`,
		`SELECT price::text FROM products WHERE id = ? OR id = 3`,
		`SELECT price::text FROM (SELECT * FROM products WHERE id = ? UNION ALL SELECT * FROM products ORDER BY id DESC) x ORDER BY price DESC LIMIT 1`,
		`SELECT count(*)::text FROM products WHERE id = ? HAVING (TABLE products LIMIT 1) IS NULL OR true`,
	}
	for _, q := range reads {
		args := []any{1}
		if !strings.Contains(q, "?") {
			args = nil
		}
		for n := range int64(3) {
			_ = db.Raw(q, args...).Scan(new(string)).Error
			db.setPrice(t, 1+n%3, 1000+n)
			var got, want string
			_ = db.Raw(q, args...).Scan(&got).Error
			_ = plain.Raw(q, args...).Scan(&want).Error
			equal(t, q, got, want)
		}
	}
}

// A write that is not confined to known rows empties all look-ups of the table.
func TestC07AWriteWithoutKeyEmptiesTheTable(t *testing.T) {
	t.Parallel()
	many := make([]int64, maxRowsWritten+1)
	for i := range many {
		many[i] = int64(i + 2)
	}
	for name, write := range map[string]func(db *gorm.DB) error{
		"no key": func(db *gorm.DB) error { return db.Exec("UPDATE products SET price = 7 WHERE name = ?", "p1").Error },
		"or": func(db *gorm.DB) error {
			return db.Exec("UPDATE products SET price = 7 WHERE id = ? OR name = 'p1'", 2).Error
		},
		"literal":    func(db *gorm.DB) error { return db.Exec("UPDATE products SET price = 7 WHERE id = 1").Error },
		"expression": func(db *gorm.DB) error { return db.Exec("UPDATE products SET price = 7 WHERE id = ? - 1", 2).Error },
		"from": func(db *gorm.DB) error {
			return db.Exec("UPDATE products SET price = 7 FROM (SELECT 1 AS a) x WHERE id = a AND price > ?", 0).Error
		},
		"cte": func(db *gorm.DB) error {
			return db.Exec("WITH w AS (UPDATE products SET price = 7 WHERE id = 1) UPDATE products SET price = 5 WHERE id = ?", 2).Error
		},
		"a strange value": func(db *gorm.DB) error { return db.Exec("UPDATE products SET price = 7 WHERE id = ?", " 1 ").Error },
		"ANY": func(db *gorm.DB) error {
			return db.Exec("UPDATE products SET price = 7 WHERE id = ANY(?)", "{1,2}").Error
		},
		"upsert": func(db *gorm.DB) error {
			return db.Clauses(clause.OnConflict{UpdateAll: true}).Create(&[]product{{ID: 1, Price: 7}}).Error
		},
		"merge": func(db *gorm.DB) error {
			return db.Exec("MERGE INTO products p USING (VALUES (1)) v(id) ON p.id = v.id WHEN MATCHED THEN UPDATE SET price = 7").Error
		},
		"many keys": func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error {
				for _, id := range append(many, 1) {
					if err := tx.Model(&product{ID: id}).Update("price", 7).Error; err != nil {
						return err
					}
				}
				return nil
			})
		},
		"a long list": func(db *gorm.DB) error {
			return db.Model(&product{}).Where("id IN ?", append(many, 1)).Update("price", 7).Error
		},
		"two statements in a transaction": func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error {
				if err := tx.Model(&product{ID: 2}).Update("price", 7).Error; err != nil {
					return err
				}
				return tx.Exec("UPDATE products SET price = 7 WHERE name = ?", "p1").Error
			})
		},
		"prepared by hand": func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error {
				stmt, err := tx.Statement.ConnPool.PrepareContext(context.Background(), "UPDATE products SET price = 7 WHERE id = $1")
				if err != nil {
					return err
				}
				defer stmt.Close()
				_, err = stmt.Exec(1)
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t, database(t), Config{})
			equal(t, "before", db.price(t, 1), 10)
			must(t, write(db.DB))
			equal(t, "after", db.price(t, 1), 7)
		})
	}
}

// A row that was not there is found once it is inserted, whatever key it gets.
func TestC16NotFoundByKeyThenInsert(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := database(t)
		exec(t, dsn, `CREATE TABLE notes (id bigserial PRIMARY KEY, text text)`)
		cfg.Tables = map[string]Rule{"notes": {}, "products": {}}
		db := open(t, dsn, cfg)
		ready(t, db)
		type note struct {
			ID   int64
			Text string
		}
		find := func(ids ...int64) int {
			var ns []note
			must(t, db.Find(&ns, ids).Error)
			return len(ns)
		}
		for range 2 {
			equal(t, "before", find(1), 0)
			equal(t, "before", find(1, 2), 0)
		}
		queries := db.seen.queries.Load()
		equal(t, "cached", find(1)+find(1, 2), 0)
		equal(t, "queries", db.seen.queries.Load(), queries)
		must(t, db.Create(&note{Text: "a"}).Error)
		equal(t, "after an insert", find(1), 1)
		equal(t, "one of two", find(1, 2), 1)
		must(t, db.Create(&note{Text: "b"}).Error)
		equal(t, "both", find(1, 2), 2)
		queries = db.seen.queries.Load()
		equal(t, "the first, served still", find(1), 1)
		equal(t, "queries", db.seen.queries.Load(), queries)
		must(t, db.Exec("UPDATE notes SET id = 9 WHERE id = ?", 1).Error)
		equal(t, "moved away", find(1), 0)
		equal(t, "moved to", find(9), 1)
	})
}

func TestC07RowsOfOtherKindsOfKeys(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn,
		`CREATE TABLE words (word text PRIMARY KEY, n bigint)`, `INSERT INTO words VALUES ('a', 0), ('b', 0)`,
		`CREATE TABLE uids (id uuid PRIMARY KEY, n bigint)`,
		`INSERT INTO uids VALUES ('00000000-0000-0000-0000-00000000000a', 0), ('00000000-0000-0000-0000-00000000000b', 0)`,
		`CREATE TABLE pairs (a bigint, b text, n bigint, PRIMARY KEY (a, b))`, `INSERT INTO pairs VALUES (1, 'x', 0), (1, 'y', 0)`,
		`CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`CREATE TABLE loose (word text COLLATE nocase PRIMARY KEY, n bigint)`, `INSERT INTO loose VALUES ('a', 0), ('b', 0)`,
		`CREATE TABLE padded (word char(3) PRIMARY KEY, n bigint)`, `INSERT INTO padded VALUES ('a', 0), ('b', 0)`,
		`CREATE TABLE parted (id bigint PRIMARY KEY, n bigint) PARTITION BY RANGE (id)`,
		`CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)`, `INSERT INTO parted VALUES (1, 0), (2, 0)`,
	)
	tables := map[string]Rule{}
	for _, name := range []string{"words", "uids", "pairs", "loose", "padded", "parted", "parted_1"} {
		tables[name] = Rule{}
	}
	db := open(t, dsn, Config{Tables: tables})
	for i, c := range []struct {
		table, where, writeTo string
		write, read, other    []any
		kept                  bool // the other one
	}{
		{"words", "word = ?", "words", []any{"a"}, []any{"a"}, []any{"b"}, true},
		{"uids", "id = ?", "uids", []any{"00000000-0000-0000-0000-00000000000A"}, []any{"0000000000000000000000000000000a"}, []any{"00000000-0000-0000-0000-00000000000b"}, true},
		{"pairs", "a = ? AND b = ?", "pairs", []any{1, "x"}, []any{int64(1), "x"}, []any{1, "y"}, true},
		{"loose", "word = ?", "loose", []any{"A"}, []any{"a"}, []any{"b"}, false},
		{"padded", "word = ?", "padded", []any{"a  "}, []any{"a"}, []any{"b"}, false},
		{"parted", "id = ?", "parted_1", []any{1}, []any{1}, []any{2}, false},
		{"parted_1", "id = ?", "parted", []any{1}, []any{1}, []any{2}, false},
	} {
		n := func(key []any) (n int64, served bool) {
			before := db.seen.queries.Load()
			must(t, db.Raw("SELECT n FROM "+c.table+" WHERE "+c.where, key...).Scan(&n).Error)
			return n, db.seen.queries.Load() == before
		}
		for range 2 {
			n(c.read)
			n(c.other)
		}
		must(t, db.Exec("UPDATE "+c.writeTo+" SET n = "+fmt.Sprint(i+1)+" WHERE "+c.where, c.write...).Error)
		got, _ := n(c.read)
		equal(t, c.table+", the row", got, int64(i+1))
		_, served := n(c.other)
		equal(t, c.table+", another row is served", served, c.kept)
	}
}

// What is compared is not what was passed.
func TestC07ACastKeyNamesNoRow(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE words (word text PRIMARY KEY, n bigint)`, `INSERT INTO words VALUES ('a', 0)`)
	db := open(t, dsn, Config{Tables: map[string]Rule{"words": {}}})
	read := func(where string, key any) (n int64) {
		must(t, db.Raw("SELECT n FROM words WHERE "+where, key).Scan(&n).Error)
		return n
	}
	for range 2 {
		read("word = ?", "a")
		read("word = ?::varchar(1)", "abc")
	}
	must(t, db.Exec("UPDATE words SET n = 1 WHERE word = ?::varchar(1)", "abc").Error)
	equal(t, "after a write by a cast key", read("word = ?", "a"), 1)
	must(t, db.Exec("UPDATE words SET n = 2 WHERE word = ?", "a").Error)
	equal(t, "read by a cast key", read("word = ?::varchar(1)", "abc"), 2)
}

// Two writers, one row each: neither empties the other's.
func TestC07RowsInOtherInstances(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, a, b)
	for id := int64(1); id <= 3; id++ {
		a.price(t, id)
		b.price(t, id)
	}
	a.setPrice(t, 1, 5)
	queries := b.seen.queries.Load()
	equal(t, "b, another row", b.price(t, 2), 20)
	equal(t, "b's queries", b.seen.queries.Load(), queries)
	equal(t, "b, the row", b.price(t, 1), 5)
	equal(t, "b's queries", b.seen.queries.Load(), queries+1)
	b.cache.memory.clear()
	equal(t, "b, another row, from Redis", b.price(t, 2), 20)
	equal(t, "b's queries", b.seen.queries.Load(), queries+1)
	equal(t, "corrupt", b.cache.Stats().Corrupt, 0)
}

func TestRowsThatNobodyReadsLeaveNothingInRedis(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	db := open(t, database(t), Config{Redis: rdb, Name: name})
	ready(t, db)
	db.price(t, 1)
	for id := int64(1); id <= 20; id++ {
		db.setPrice(t, id, 5)
	}
	rows := keysOf(t, rdb, "infra:"+name+":cache:t:"+rowTag(db.table(t, "products"), "*"))
	equal(t, "tags of rows and of the whole", len(rows), 2)
	equal(t, "the row that is read", db.price(t, 1), 5)
}

// A write of a row shows through the row and through the table. Who has seen it
// through one is not served what is older through the other, though the message
// of the write has not come yet.
func TestC04RowAndTableGoTogether(t *testing.T) {
	t.Parallel()
	for name, tableFirst := range map[string]bool{"table first": true, "row first": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, space := client(t)
			dsn := database(t)
			db := open(t, dsn, Config{Redis: rdb, Name: space, Lease: time.Minute})
			ready(t, db)
			sum := func() string { return db.text(t, "SELECT sum(price)::text FROM products WHERE id < 3") }
			for range 2 {
				equal(t, "row", db.price(t, 1), 10)
				equal(t, "table", sum(), "30")
			}
			table := db.table(t, "products")
			row := rowTag(table, "1")
			silent := *db.cache.store.(*redisStore)
			silent.channel = ""
			exec(t, dsn, "UPDATE products SET price = 50 WHERE id = 1")
			must(t, errOf(silent.bump(context.Background(), []string{table, row}, "another", false)))
			equal(t, "nobody has told: the row", db.price(t, 1), 10)
			equal(t, "nobody has told: the table", sum(), "30")
			if tableFirst {
				db.cache.mirror.forgetTag(table)
				equal(t, "the table", sum(), "70")
				equal(t, "the row", db.price(t, 1), 50)
			} else {
				db.cache.mirror.forgetTag(row)
				equal(t, "the row", db.price(t, 1), 50)
				equal(t, "the table", sum(), "70")
			}
			queries := db.seen.queries.Load()
			equal(t, "the row again", db.price(t, 1), 50)
			equal(t, "the table again", sum(), "70")
			equal(t, "queries", db.seen.queries.Load(), queries)
		})
	}
}

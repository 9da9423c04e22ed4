package cachehook

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"gorm.io/gorm"
)

type meta struct {
	Color string   `json:"color"`
	Sizes []string `json:"sizes"`
}

type embedded struct{ Note *string }

// upper is a Scanner that keeps what it is given and changes it.
type upper struct{ raw []byte }

func (u *upper) Scan(v any) error {
	switch v := v.(type) {
	case []byte:
		for i := range v {
			v[i] &^= 0x20
		}
		u.raw = v
	case string:
		u.raw = []byte(v)
	case nil:
		u.raw = nil
	default:
		return fmt.Errorf("upper: %T", v)
	}
	return nil
}

func (u upper) Value() (driver.Value, error) { return string(u.raw), nil }

// thing has a column of every kind.
type thing struct {
	ID       int64
	Name     string
	Secret   string `json:"-"`
	Small    int16
	Ratio    float64
	Yes      bool
	Maybe    *bool
	Raw      []byte
	Num      string
	Meta     meta `gorm:"serializer:json"`
	Doc      string
	Arr      string
	UID      string `gorm:"column:uid"`
	IP       string
	Took     string
	At       time.Time
	Local    time.Time
	Day      time.Time
	Null     sql.NullString
	Upper    upper `gorm:"column:upper"`
	embedded `gorm:"embedded"`
	Deleted  gorm.DeletedAt

	found int // set by AfterFind
}

func (t *thing) AfterFind(*gorm.DB) error { t.found++; return nil }

func things(t *testing.T) string {
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE things (id bigint PRIMARY KEY, name text, secret text, small smallint, ratio double precision, yes boolean,
		maybe boolean, raw bytea, num numeric, meta jsonb, doc json, arr text[], uid uuid, ip inet, took interval,
		at timestamptz, local timestamp, day date, "null" text, upper bytea, note text, deleted timestamptz)`,
		`INSERT INTO things VALUES
		(1, 'a''b"c', 's', -3, 1.5, true, NULL, '\x00ff10', 12345678901234567890.123456789, '{"color":"red","sizes":["s","m"]}', '{"a": [1, 2]}',
		 '{"x","y z"}', '6ba7b810-9dad-11d1-80b4-00c04fd430c8', '10.0.0.1/24', '1 day 02:03:04.5', '2024-03-31 01:30:00.123456+02', '2024-03-31 02:30:00', '2024-02-29', NULL, 'abc', NULL, NULL),
		(2, '', '', 32767, 'NaN', false, true, '', 0, '{}', 'null', '{}', '6ba7b811-9dad-11d1-80b4-00c04fd430c8', '::1', '-1 mon', '1969-12-31 23:59:59+00', '0001-01-01', '9999-12-31', '', '', 'n', NULL),
		(3, 'gone', '', 0, 0, false, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'x', NULL, NULL, now())`)
	return dsn
}

// destinations are the ways to read; each returns what it read, with the error
// and RowsAffected.
var destinations = map[string]func(db *gorm.DB) (any, *gorm.DB){
	"First": func(db *gorm.DB) (any, *gorm.DB) { var v thing; tx := db.First(&v, 1); return v, tx },
	"Take": func(db *gorm.DB) (any, *gorm.DB) {
		var v thing
		tx := db.Where("id = ?", 2).Take(&v)
		nan := math.IsNaN(v.Ratio)
		v.Ratio = 0
		return []any{v, nan}, tx
	},
	"Last": func(db *gorm.DB) (any, *gorm.DB) {
		var v *thing
		tx := db.Model(&thing{}).Where("id < 2").Last(&v)
		return v, tx
	},
	"not found":    func(db *gorm.DB) (any, *gorm.DB) { var v thing; tx := db.First(&v, 99); return v, tx },
	"soft deleted": func(db *gorm.DB) (any, *gorm.DB) { var v thing; tx := db.First(&v, 3); return v, tx },
	"Unscoped":     func(db *gorm.DB) (any, *gorm.DB) { var v thing; tx := db.Unscoped().First(&v, 3); return v, tx },
	"Find":         func(db *gorm.DB) (any, *gorm.DB) { var v []thing; tx := db.Where("id = 1").Find(&v); return v, tx },
	"Find pointers": func(db *gorm.DB) (any, *gorm.DB) {
		var v []*thing
		tx := db.Unscoped().Where("id <> 2").Order("id").Find(&v)
		return v, tx
	},
	"Find none":       func(db *gorm.DB) (any, *gorm.DB) { var v []thing; tx := db.Where("id = 77").Find(&v); return v, tx },
	"Find one struct": func(db *gorm.DB) (any, *gorm.DB) { var v thing; tx := db.Order("id").Find(&v); return v, tx },
	"array":           func(db *gorm.DB) (any, *gorm.DB) { var v [2]thing; tx := db.Where("id = 1").Find(&v); return v, tx },
	"map": func(db *gorm.DB) (any, *gorm.DB) {
		v := map[string]any{}
		tx := db.Model(&thing{}).Where("id = 1").Take(&v)
		return v, tx
	},
	"maps": func(db *gorm.DB) (any, *gorm.DB) {
		var v []map[string]any
		tx := db.Table("things").Where("id <> 2").Order("id").Find(&v)
		return v, tx
	},
	"raw map": func(db *gorm.DB) (any, *gorm.DB) {
		v := map[string]any{}
		tx := db.Raw("SELECT * FROM things WHERE id = 1").Scan(&v)
		return v, tx
	},
	"Pluck": func(db *gorm.DB) (any, *gorm.DB) {
		var v []string
		tx := db.Model(&thing{}).Order("id").Pluck("name", &v)
		return v, tx
	},
	"Pluck time": func(db *gorm.DB) (any, *gorm.DB) {
		var v []time.Time
		tx := db.Model(&thing{}).Order("id").Pluck("at", &v)
		return v, tx
	},
	"Pluck bytes": func(db *gorm.DB) (any, *gorm.DB) {
		var v [][]byte
		tx := db.Model(&thing{}).Order("id").Pluck("raw", &v)
		return v, tx
	},
	"Pluck any": func(db *gorm.DB) (any, *gorm.DB) {
		var v []any
		tx := db.Model(&thing{}).Order("id").Pluck("num", &v)
		return v, tx
	},
	"Count": func(db *gorm.DB) (any, *gorm.DB) { var v int64; tx := db.Model(&thing{}).Count(&v); return v, tx },
	"Count group": func(db *gorm.DB) (any, *gorm.DB) {
		var v int64
		tx := db.Model(&thing{}).Group("yes").Count(&v)
		return v, tx
	},
	"Count distinct": func(db *gorm.DB) (any, *gorm.DB) {
		var v int64
		tx := db.Model(&thing{}).Distinct("yes").Count(&v)
		return v, tx
	},
	"scalar": func(db *gorm.DB) (any, *gorm.DB) {
		var v float64
		tx := db.Raw("SELECT ratio FROM things WHERE id = 1").Scan(&v)
		return v, tx
	},
	"scalar null": func(db *gorm.DB) (any, *gorm.DB) {
		var v *bool
		tx := db.Raw("SELECT maybe FROM things WHERE id = 1").Scan(&v)
		return v, tx
	},
	"scan error": func(db *gorm.DB) (any, *gorm.DB) {
		var v int
		tx := db.Raw("SELECT name FROM things WHERE id = 1").Scan(&v)
		return v, tx
	},
	"named": func(db *gorm.DB) (any, *gorm.DB) {
		var v thing
		tx := db.Raw("SELECT * FROM things WHERE id = @id", sql.Named("id", 1)).Find(&v)
		return v, tx
	},
	"other struct": func(db *gorm.DB) (any, *gorm.DB) {
		var v struct {
			Name string
			Raw  sql.RawBytes
		}
		tx := db.Model(&thing{}).Where("id = 1").Select("name").Find(&v)
		return v, tx
	},
	"Row": func(db *gorm.DB) (any, *gorm.DB) {
		var id int64
		var at any
		tx := db.Session(&gorm.Session{})
		err := tx.Raw("SELECT id, at FROM things WHERE id = 1").Row().Scan(&id, &at)
		return []any{id, at, err}, tx
	},
	"Row none": func(db *gorm.DB) (any, *gorm.DB) {
		var id int64
		tx := db.Session(&gorm.Session{})
		err := tx.Raw("SELECT id FROM things WHERE id = 77").Row().Scan(&id)
		return errors.Is(err, sql.ErrNoRows), tx
	},
	"Rows": func(db *gorm.DB) (any, *gorm.DB) {
		tx := db.Session(&gorm.Session{})
		rows, err := tx.Unscoped().Model(&thing{}).Order("id").Rows()
		if err != nil {
			return err, tx
		}
		defer rows.Close()
		types, _ := rows.ColumnTypes()
		var out []any
		for _, c := range types {
			length, has := c.Length()
			p, s, dec := c.DecimalSize()
			n, known := c.Nullable()
			out = append(out, c.Name(), c.DatabaseTypeName(), c.ScanType().String(), length, has, p, s, dec, n, known)
		}
		for rows.Next() {
			vals := make([]any, len(types))
			ptrs := make([]any, len(types))
			for i := range vals {
				ptrs[i] = &vals[i]
			}
			if err := rows.Scan(ptrs...); err != nil {
				return err, tx
			}
			out = append(out, fmt.Sprintf("%#v", vals))
		}
		return append(out, rows.Err()), tx
	},
	"ScanRows": func(db *gorm.DB) (any, *gorm.DB) {
		tx := db.Session(&gorm.Session{})
		rows, err := tx.Model(&thing{}).Where("id = 1").Rows()
		if err != nil {
			return err, tx
		}
		defer rows.Close()
		var out []thing
		for rows.Next() {
			var v thing
			if err := tx.ScanRows(rows, &v); err != nil {
				return err, tx
			}
			out = append(out, v)
		}
		return out, tx
	},
	"FindInBatches": func(db *gorm.DB) (any, *gorm.DB) {
		var v []thing
		var ids []int64
		tx := db.Unscoped().Select("id").FindInBatches(&v, 2, func(*gorm.DB, int) error {
			for _, x := range v {
				ids = append(ids, x.ID)
			}
			return nil
		})
		return ids, tx
	},
	"generics": func(db *gorm.DB) (any, *gorm.DB) {
		v, err := gorm.G[thing](db).Where("id = ?", 1).First(context.Background())
		return []any{v, err}, db.Session(&gorm.Session{})
	},
	"server error": func(db *gorm.DB) (any, *gorm.DB) {
		var v int
		tx := db.Raw("SELECT 1 / small FROM things WHERE id = 3").Scan(&v)
		return v, tx
	},
}

type reading struct {
	value any
	err   string
	rows  int64
}

func read(f func(*gorm.DB) (any, *gorm.DB), db *gorm.DB) reading {
	v, tx := f(db)
	r := reading{value: v, rows: tx.RowsAffected}
	if tx.Error != nil {
		r.err = tx.Error.Error()
	}
	return r
}

func TestC12EveryDestinationIsEqualOnHitAndMiss(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := things(t)
	for _, prepare := range []bool{false, true} {
		cfg := Config{Redis: rdb, Name: fmt.Sprint(name, prepare), Tables: map[string]Rule{"things": {}}, Timeout: 5 * time.Second}
		plain := openWith(t, dsn, Config{Disabled: true}, &gorm.Config{PrepareStmt: prepare})
		first, second := openWith(t, dsn, cfg, &gorm.Config{PrepareStmt: prepare}), openWith(t, dsn, cfg, &gorm.Config{PrepareStmt: prepare})
		alone := openPrepared(t, dsn, Config{Tables: cfg.Tables}, &gorm.Config{PrepareStmt: prepare}, func(c *Cache) { c.quick = math.MaxUint32 - 1 })
		ready(t, first, second)
		for what, f := range destinations {
			want := read(f, plain.DB)
			check := func(when string, db *instance) {
				if got := read(f, db.DB); !reflect.DeepEqual(got, want) {
					t.Errorf("%s (prepared %v): %s:\ngot  %+v\nwant %+v", what, prepare, when, got, want)
				}
			}
			check("miss", first)
			check("hit in memory", first)
			check("hit in memory, again", first)
			check("hit in Redis, or what was in flight to it", second)
			check("hit in memory of what was in Redis", second)
			check("miss without Redis", alone)
			check("hit without Redis", alone)
			must(t, alone.cache.InvalidateTables(context.Background(), "things"))
			check("miss on the spot", alone)
			check("hit of what was read on the spot", alone)
		}
		s1, s2 := first.cache.Stats(), second.cache.Stats()
		if s1.L1Hits < 60 || s2.L2Hits < 10 || s2.Corrupt != 0 {
			t.Fatalf("the cache was hardly in use: %+v %+v", s1, s2)
		}
	}
}

func TestC12PreloadAndJoins(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE owners (id bigint PRIMARY KEY, name text)`, `CREATE TABLE pets (id bigint PRIMARY KEY, owner_id bigint, name text)`,
		`INSERT INTO owners SELECT i, 'o' || i FROM generate_series(1, 3) i`, `INSERT INTO pets SELECT i, 1 + i % 3, 'p' || i FROM generate_series(1, 9) i`)
	type Pet struct {
		ID      int64
		OwnerID int64
		Name    string
	}
	type Owner struct {
		ID   int64
		Name string
		Pets []Pet
	}
	db := open(t, dsn, Config{Tables: map[string]Rule{"owners": {}, "pets": {}}})
	load := func() (owners []Owner) {
		must(t, db.Preload("Pets").Order("id").Find(&owners).Error)
		return owners
	}
	miss := load()
	queries := db.seen.queries.Load()
	hit := load()
	if !reflect.DeepEqual(hit, miss) || len(hit) != 3 || len(hit[0].Pets) != 3 {
		t.Fatalf("got %+v, want %+v", hit, miss)
	}
	equal(t, "queries of the hit", db.seen.queries.Load(), queries)
	must(t, db.Exec("UPDATE pets SET name = 'new'").Error)
	equal(t, "after a write of the preloaded", load()[0].Pets[0].Name, "new")
}

// C12: the queries of a Preload are their own.
func TestC12AClauseIsForItsOwnQueryAndNotForPreloads(t *testing.T) {
	t.Parallel()
	type detail struct{ ID, ProductID int64 }
	type owner struct {
		ID      int64
		Details []detail `gorm:"foreignKey:ProductID"`
	}
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE details (id bigint, product_id bigint)`, `INSERT INTO details VALUES (1, 1)`)
	db := open(t, dsn, Config{Tables: map[string]Rule{}})
	for _, queries := range []int64{2, 1} {
		before := db.seen.queries.Load()
		must(t, db.Clauses(TTL(time.Minute)).Table("products").Preload("Details").First(&owner{}, 1).Error)
		equal(t, "queries", db.seen.queries.Load()-before, queries)
	}
}

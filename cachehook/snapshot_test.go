package cachehook

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

type kind string

type address struct { // what GORM does not map: its columns are read into nothing
	City string
	Zip  *string
}

type Place struct {
	City string
	Zip  *string
}

// plainModel has a field of every kind that a snapshot copies.
type plainModel struct {
	gorm.Model
	Kind    kind
	Small   int8
	Num     int32
	Ratio   float32
	Exact   float64
	Yes     bool
	Text    *string
	Count   *int64
	Seen    *time.Time
	Day     time.Time
	Raw     []byte
	Null    sql.NullString
	Place   `gorm:"embedded;embeddedPrefix:a_"`
	address `gorm:"embedded"`

	Ignored string        `gorm:"-"`
	Others  []*plainModel `gorm:"foreignKey:Num"`
	found   int
}

func (*plainModel) TableName() string { return "plains" }

func (p *plainModel) AfterFind(*gorm.DB) error { p.found++; return nil }

// plains makes the table with rows of random values, NULL among them.
func plains(t testing.TB, rows int, seed uint64) string {
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE plains (id bigint PRIMARY KEY, created_at timestamptz, updated_at timestamptz, deleted_at timestamptz,
		kind text, small smallint, num int, ratio real, exact double precision, yes boolean, text text, count bigint, seen timestamptz,
		day date, raw bytea, "null" text, city text, zip text, a_city text, a_zip text)`)
	r := rand.New(rand.NewPCG(seed, 1))
	value := func(v string) string {
		if r.IntN(4) == 0 {
			return "NULL"
		}
		return v
	}
	text := func() string { return value(fmt.Sprintf("'%x'", r.Uint64()>>r.IntN(64))) }
	number := func(n int64) string { return value(fmt.Sprint(r.Int64N(n) - n/2)) }
	at := func() string { return value(fmt.Sprintf("to_timestamp(%d.5)", r.Int64N(1<<32))) }
	for i := range rows {
		deleted := "NULL"
		if r.IntN(8) == 0 {
			deleted = "now()"
		}
		raw := []string{"NULL", "''", fmt.Sprintf(`'\x%08x'`, r.Uint32())}[r.IntN(3)]
		exec(t, dsn, fmt.Sprintf("INSERT INTO plains VALUES (%d, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)", i+1,
			at(), at(), deleted, text(), number(200), number(1<<30), number(1000), number(1<<40), value("true"), text(), number(1<<50), at(),
			at(), raw, text(), text(), text(), text(), text()))
	}
	return dsn
}

// used is a model as a program may hand it to a query.
func used() plainModel {
	text, city, seen := "old", "old", time.Unix(1, 0)
	return plainModel{
		Kind: "old", Small: 1, Num: 2, Ratio: 3, Exact: 4, Yes: true, Text: &text, Seen: &seen, Day: seen, Raw: []byte("old"), found: 7,
		Null: sql.NullString{String: "old", Valid: true}, Ignored: "mine", Place: Place{City: city, Zip: &city}, address: address{City: "mine"},
		Model: gorm.Model{DeletedAt: gorm.DeletedAt{Time: seen, Valid: true}},
	}
}

// plainReads read into every kind of destination that is filled, and into some
// that are not.
var plainReads = map[string]func(db *gorm.DB, id int) (any, *gorm.DB){
	"First": func(db *gorm.DB, id int) (any, *gorm.DB) { var v plainModel; tx := db.First(&v, id); return v, tx },
	"First, used": func(db *gorm.DB, id int) (any, *gorm.DB) {
		v := used()
		tx := db.Unscoped().First(&v, id)
		return v, tx
	},
	"Take pointer": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v *plainModel
		tx := db.Take(&v, id)
		return v, tx
	},
	"Find one": func(db *gorm.DB, id int) (any, *gorm.DB) {
		v := used()
		tx := db.Where("id >= ?", id).Order("id").Find(&v)
		return v, tx
	},
	"Select": func(db *gorm.DB, id int) (any, *gorm.DB) {
		v := used()
		tx := db.Select("id", "text", "seen", "raw").Take(&v, id)
		return v, tx
	},
	"Omit": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v []plainModel
		tx := db.Omit("raw", "zip").Where("id > ?", id).Order("id").Find(&v)
		return v, tx
	},
	"Find": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v []plainModel
		tx := db.Unscoped().Where("id >= ?", id).Order("id").Find(&v)
		return v, tx
	},
	"Find pointers": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v []*plainModel
		tx := db.Unscoped().Where("id >= ?", id).Order("id").Find(&v)
		return v, tx
	},
	"Find into a used slice": func(db *gorm.DB, id int) (any, *gorm.DB) {
		v := []plainModel{used(), used(), used(), used(), used(), used(), used(), used(), used(), used(), used(), used()}
		mine := v
		tx := db.Unscoped().Where("id >= ?", id).Order("id").Limit(4).Find(&v)
		return []any{v, mine}, tx
	},
	"Find into a slice that is too short": func(db *gorm.DB, id int) (any, *gorm.DB) {
		v := []plainModel{used()}
		tx := db.Unscoped().Where("id >= ?", id).Order("id").Find(&v)
		return v, tx
	},
	"Find none": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v []plainModel
		tx := db.Where("id = ?", -id).Find(&v)
		return v, tx
	},
	"First none": func(db *gorm.DB, id int) (any, *gorm.DB) { v := used(); tx := db.First(&v, -id); return v, tx },
	"Find none, one": func(db *gorm.DB, id int) (any, *gorm.DB) {
		v := used()
		tx := db.Where("id = ?", -id).Find(&v)
		return v, tx
	},
	"Raw": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v []plainModel
		tx := db.Raw("SELECT *, 1 AS more FROM plains WHERE id > ? ORDER BY id", id).Find(&v)
		return v, tx
	},
	"twice the same column": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v plainModel
		tx := db.Raw("SELECT id, text, text FROM plains WHERE id = ?", id).Find(&v)
		return v, tx
	},
	"Preload": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v []plainModel
		tx := db.Preload("Others").Where("id >= ?", id).Order("id").Find(&v)
		return v, tx
	},
	"smaller struct": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v []struct {
			ID   uint
			Text *string
		}
		tx := db.Model(&plainModel{}).Where("id >= ?", id).Order("id").Find(&v)
		return v, tx
	},
	"array": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v [3]plainModel
		tx := db.Where("id >= ?", id).Order("id").Limit(2).Find(&v)
		return v, tx
	},
	"SkipHooks": func(db *gorm.DB, id int) (any, *gorm.DB) {
		var v plainModel
		tx := db.Session(&gorm.Session{SkipHooks: true}).First(&v, id)
		return v, tx
	},
	"generics": func(db *gorm.DB, id int) (any, *gorm.DB) {
		v, err := gorm.G[plainModel](db).Where("id >= ?", id).Order("id").Find(db.Statement.Context)
		return []any{v, err}, db.Session(&gorm.Session{})
	},
	"FindInBatches": func(db *gorm.DB, _ int) (any, *gorm.DB) {
		var v []plainModel
		var all []string
		tx := db.Unscoped().FindInBatches(&v, 3, func(*gorm.DB, int) error {
			all = append(all, fmt.Sprintf("%d %+v", len(v), v[0].Kind))
			return nil
		})
		return all, tx
	},
}

func TestC12SnapshotsAreEqualToWhatTheDatabaseGives(t *testing.T) {
	t.Parallel()
	const rows = 12
	dsn := plains(t, rows, 1)
	rdb, name := client(t)
	for _, prepare := range []bool{false, true} {
		cfg := Config{Redis: rdb, Name: fmt.Sprint(name, prepare), Tables: map[string]Rule{"plains": {}}}
		plain := openWith(t, dsn, Config{Disabled: true}, &gorm.Config{PrepareStmt: prepare})
		cached := openWith(t, dsn, cfg, &gorm.Config{PrepareStmt: prepare})
		alone := openWith(t, dsn, Config{Tables: cfg.Tables}, &gorm.Config{PrepareStmt: prepare}) // it reads no more of columns than it must
		ready(t, cached)
		for what, f := range plainReads {
			for id := 1; id <= rows; id++ {
				of := func(db *gorm.DB) reading {
					return read(func(db *gorm.DB) (any, *gorm.DB) { return f(db, id) }, db)
				}
				want := of(plain.DB)
				for _, when := range []string{"miss", "hit", "hit again"} {
					for mode, db := range map[string]*instance{"redis": cached, "memory": alone} {
						if got := of(db.DB); !reflect.DeepEqual(got, want) {
							t.Errorf("%s of %d (prepared %v): %s, %s:\ngot  %+v\nwant %+v", what, id, prepare, mode, when, got, want)
						}
					}
				}
			}
		}
		for _, db := range []*instance{cached, alone} {
			if typed, all := snapshots(db.cache); typed < all/2 {
				t.Errorf("%d of %d entries have a snapshot", typed, all)
			}
		}
	}
}

// snapshots counts the entries of results that have one, and all.
func snapshots(c *Cache) (typed, all int) {
	for i := range c.memory.shards {
		sh := &c.memory.shards[i]
		sh.mu.Lock()
		for _, e := range sh.items {
			switch e.value.(type) {
			case *rowset:
				all++
			case *snapshot:
				all++
				typed++
			}
		}
		sh.mu.Unlock()
	}
	return typed, all
}

func TestC13ChangingWhatASnapshotFilledChangesNothingElse(t *testing.T) {
	t.Parallel()
	dsn := plains(t, 12, 2)
	exec(t, dsn, `UPDATE plains SET raw = '\x01020304' WHERE id > 5`) // neighbours
	db := open(t, dsn, Config{Tables: map[string]Rule{"plains": {}}})
	get := func() (one []plainModel, many []plainModel, pointers []*plainModel) {
		one = make([]plainModel, 1)
		must(t, db.Unscoped().First(&one[0]).Error)
		must(t, db.Unscoped().Order("id").Find(&many).Error)
		must(t, db.Unscoped().Order("id").Find(&pointers).Error)
		return one, many, pointers
	}
	show := func(p *plainModel) string {
		s := fmt.Sprintf("%+v %q", *p, p.Raw)
		for _, v := range []any{p.Text, p.Count, p.Seen, p.Place.Zip} {
			if rv := reflect.ValueOf(v); !rv.IsNil() {
				s += fmt.Sprint(" ", rv.Elem())
			}
			s += ";"
		}
		// Addresses differ each time.
		return pointerText.ReplaceAllString(s, "")
	}
	text := func(one, many []plainModel, pointers []*plainModel) (s string) {
		for i := range one {
			s += show(&one[i])
		}
		for i := range many {
			s += show(&many[i]) + show(pointers[i])
		}
		return s
	}
	get()
	get()
	want := text(get())
	spoil := func(p *plainModel) {
		for i := range p.Raw {
			p.Raw[i] = 'X'
		}
		p.Raw = append(p.Raw, "appended"...) // must not reach the neighbour
		if p.Text != nil {
			*p.Text = "X"
		}
		if p.Count != nil {
			*p.Count = -1
		}
		if p.Seen != nil {
			*p.Seen = time.Time{}
		}
		p.Kind, p.Null.String = "X", "X"
	}
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 10 {
				one, many, pointers := get()
				if got := text(one, many, pointers); got != want {
					t.Errorf("got %s\nwant %s", got, want)
				}
				// Spoiling one model must spare the other ones of its result.
				before := text(nil, many, pointers)
				spoil(&one[0])
				for i := range many {
					others := text(nil, many[i+1:], pointers[i+1:])
					spoil(&many[i])
					spoil(pointers[i])
					if got := text(nil, many[i+1:], pointers[i+1:]); got != others {
						t.Errorf("a neighbour changed: %s, want %s", got, others)
					}
				}
				if text(nil, many, pointers) == before {
					t.Error("nothing was spoilt")
				}
			}
		}()
	}
	for range 8 {
		<-done
	}
	equal(t, "misses", db.seen.count(hook.Database), 3)
	typed, all := snapshots(db.cache)
	equal(t, "snapshots", typed, all)
}

var pointerText = regexp.MustCompile(`0x[0-9a-f]+`)

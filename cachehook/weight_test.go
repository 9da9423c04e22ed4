package cachehook

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"gorm.io/gorm"
)

// heap is what is in use after two collections.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What entries hold is measured on the heap, after a miss and after a hit, which may
// change their form. The payload is what the caller's own models hold. What is read
// by key has the tag of its row besides.
//
// Not parallel: it measures what the process holds.
func TestMemoryOfAnEntryIsItsPayloadAndAFewHundredBytes(t *testing.T) {
	dsn := database(t)
	exec(t, dsn, `INSERT INTO products SELECT i, 'the name of product ' || i, i * 10 FROM generate_series(101, 4000) i`)
	for _, test := range []struct {
		name    string
		entries int
		read    func(db *instance, i int) (payload int)
	}{
		{"one row", 3000, func(db *instance, i int) int {
			var p product
			must(t, db.First(&p, i+1).Error)
			return int(unsafe.Sizeof(p)) + len(p.Name)
		}},
		{"100 rows", 200, func(db *instance, i int) (payload int) {
			var ps []product
			must(t, db.Where("id > ?", i*5).Order("id").Limit(100).Find(&ps).Error)
			for i := range ps {
				payload += int(unsafe.Sizeof(ps[i])) + len(ps[i].Name)
			}
			return payload
		}},
	} {
		db := open(t, dsn, Config{L1: L1{MaxEntries: 10_000, MaxBytes: 1 << 30}})
		test.read(db, test.entries) // the catalogue, the pool, the layouts
		runtime.KeepAlive(db)
		empty, counted := heap(), db.cache.Stats().Bytes
		for _, form := range []string{"after a miss", "after a hit"} {
			payload := 0
			for i := range test.entries {
				payload += test.read(db, i)
			}
			held := float64(heap() - empty)
			n := float64(test.entries)
			says := float64(db.cache.Stats().Bytes - counted)
			what := fmt.Sprintf("%s, %s: %.0f B an entry, %.0f B by the cache's own account, of %.0f B payload", test.name, form, held/n, says/n, float64(payload)/n)
			t.Log(what)
			if limit := 1.3*float64(payload) + 400*n; held > limit {
				t.Errorf("%s: more than %.0f", what, limit/n)
			}
			if says < 0.9*held {
				t.Errorf("%s: it thinks that it holds less than it does", what)
			}
		}
		equal(t, "entries", db.cache.Stats().Entries, int64(test.entries)+1)
		must(t, db.cache.Close())
	}
}

// Not parallel: it counts what the process allocates.
func TestWhatALookUpAllocatesBesidesGORM(t *testing.T) {
	dsn := database(t)
	plain, db := open(t, dsn, Config{Disabled: true}), open(t, dsn, Config{})
	n := 0
	miss := func(db *instance) func() {
		return func() {
			n++
			must(t, db.Where("price > ?", -n).First(new(product), 1).Error)
		}
	}
	hit := func(db *gorm.DB) func() { return func() { must(t, db.First(new(product), 1).Error) } }
	for _, test := range []struct {
		name     string
		ours, of func()
		more     float64
	}{
		{"a miss, beside the bare query", miss(db), miss(plain), 36},
		{"a hit, beside a dry run", hit(db.DB), hit(plain.Session(&gorm.Session{DryRun: true})), -5}, // the text is not built
	} {
		ours, of := testing.AllocsPerRun(300, test.ours), testing.AllocsPerRun(300, test.of)
		t.Logf("%s: %.0f allocations, %.0f there", test.name, ours, of)
		if ours > of+test.more {
			t.Errorf("%s: %.0f allocations, %.0f there: not within %+.0f", test.name, ours, of, test.more)
		}
	}
}

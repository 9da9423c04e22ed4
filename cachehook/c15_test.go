package cachehook

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestC15ErrorInTheMiddleOfAResultIsNotStored(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		for i := range int64(3) {
			var quotients []int64
			err := db.Raw("SELECT 1000 / (50 - id) FROM products ORDER BY id").Scan(&quotients).Error
			if err == nil {
				t.Fatal("a division by zero went unnoticed")
			}
			equal(t, "queries", db.seen.queries.Load(), i+1)
		}
		equal(t, "fills", db.cache.Stats().Fills, 0)
		equal(t, "entries", db.cache.Stats().Entries, 0)
		noneInUse(t, db)
	})
}

// A destination that does not take the rows fails alike at a miss and at a hit,
// and does not harm those that do.
func TestC15ScanErrorIsTheCallersAlone(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		const query = "SELECT name FROM products ORDER BY id"
		for range 3 {
			var wrong []int64
			if err := db.Raw(query).Scan(&wrong).Error; err == nil {
				t.Fatal("a name was taken for a number")
			}
			var names []string
			must(t, db.Raw(query).Scan(&names).Error)
			equal(t, "names", fmt.Sprint(len(names))+names[99], "100p100")
		}
		equal(t, "queries", db.seen.queries.Load(), 1)
		noneInUse(t, db)
	})
}

func noneInUse(t *testing.T, db *instance) {
	t.Helper()
	pool, err := db.DB.DB()
	must(t, err)
	eventually(t, "no connection leaks", 30*time.Second, func() bool { return pool.Stats().InUse == 0 })
}

// Those who wait for one flight get copies of their own.
func TestC13WaitersOfAFlightShareNothing(t *testing.T) {
	t.Parallel()
	db := open(t, things(t), Config{Tables: map[string]Rule{"things": {}}})
	must(t, db.First(&thing{}, 2).Error)
	parked, release := db.seen.park()
	defer release()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := make(map[string]int)
	read := func() {
		var v thing
		if err := db.First(&v, 1).Error; err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		got[fmt.Sprintf("%+v", v)]++
		mu.Unlock()
		v.Raw[0], v.Upper.raw[0], v.Meta.Sizes[0] = 'X', 'X', "changed" // without the lock: the race detector watches
	}
	for range 20 {
		wg.Go(read)
	}
	<-parked
	eventually(t, "the others wait", 30*time.Second, func() bool { return db.cache.Stats().Waiting >= 19 })
	release()
	wg.Wait()
	read() // what was kept
	equal(t, "different answers", len(got), 1)
	equal(t, "queries", db.seen.queries.Load(), 2)
}

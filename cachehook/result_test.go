package cachehook

import (
	"fmt"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

func TestC13ChangingAResultChangesNothingElse(t *testing.T) {
	t.Parallel()
	db := open(t, things(t), Config{Tables: map[string]Rule{"things": {}}})
	get := func() (v thing) { must(t, db.First(&v, 1).Error); return v }
	get()
	want := fmt.Sprintf("%+v", get())
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 50 {
				v := get()
				if got := fmt.Sprintf("%+v", v); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				v.Raw[0], v.Upper.raw[0] = 'X', 'X'
				v.Meta.Sizes[0] = "changed"
			}
		}()
	}
	for range 8 {
		<-done
	}
	equal(t, "misses", db.seen.count(hook.Database), 1)
}

func TestC15OversizeResultsAreReadWholeAndNotStored(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{MaxResult: 1000})
	for range 3 {
		var ps []product
		must(t, db.Order("id").Find(&ps).Error)
		equal(t, "rows", len(ps), 100)
		equal(t, "last", ps[99].Price, 1000)
		var p product
		must(t, db.Order("id").Find(&p).Error)
		rows, err := db.Table("products").Order("id").Rows()
		must(t, err)
		rows.Next()
		must(t, rows.Close())
	}
	s := db.cache.Stats()
	equal(t, "fills", s.Fills, 0)
	equal(t, "queries", db.seen.queries.Load(), 9)
	pool, err := db.DB.DB()
	must(t, err)
	eventually(t, "no connection leaks", 5*time.Second, func() bool { return pool.Stats().InUse == 0 })
}

func TestC15RowsClosedEarlyAreStoredWhole(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	for range 2 {
		rows, err := db.Table("products").Order("id").Rows()
		must(t, err)
		rows.Next()
		must(t, rows.Close())
	}
	n := 0
	rows, err := db.Table("products").Order("id").Rows()
	must(t, err)
	for rows.Next() {
		n++
	}
	must(t, rows.Close())
	equal(t, "rows", n, 100)
	equal(t, "queries", db.seen.queries.Load(), 1)
}

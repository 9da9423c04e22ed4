package cachehook

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"gorm.io/gorm"
)

func warmOne(id int64) WarmQuery {
	return WarmQuery{Name: "one", Run: func(db *gorm.DB) error { return db.First(&product{}, id).Error }}
}

func TestReadyWaitsForWarmingAndItsTimeIsBounded(t *testing.T) {
	t.Parallel()
	var log logged
	began := make(chan struct{})
	db := open(t, database(t), Config{Logger: log.logger(), WarmTimeout: 500 * time.Millisecond, Warm: []WarmQuery{
		warmOne(1),
		{Name: "endless", Run: func(db *gorm.DB) error {
			close(began)
			return db.Exec("SELECT pg_sleep(3600)").Error
		}},
		warmOne(2),
	}})
	go func() { _ = db.cache.Ready(context.Background()) }() // starts it
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := db.cache.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ready while it warms: %v", err)
	}
	ready(t, db)
	equal(t, "lines of progress", len(log.lines("n=1 of=3")), 1)
	lines := log.lines("warming takes too long")
	if len(lines) != 1 || len(log.lines("query=endless")) != 1 || len(log.lines("n=3")) != 0 {
		t.Errorf("the log says %q", lines)
	}
	before := db.seen.queries.Load()
	db.price(t, 1)
	equal(t, "queries for what was warmed", db.seen.queries.Load(), before)
}

// One that does not mind its context keeps nobody waiting but Close.
func TestWarmingLeavesAStubbornQueryBehind(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	db := open(t, database(t), Config{WarmTimeout: time.Millisecond, Warm: []WarmQuery{
		{Name: "stubborn", Run: func(*gorm.DB) error { <-stop; return nil }},
	}})
	t.Cleanup(func() { close(stop) }) // before the cache is closed
	ready(t, db)
}

func TestWarmingGoesOnAfterGoexit(t *testing.T) {
	t.Parallel()
	var log logged
	db := open(t, database(t), Config{Logger: log.logger(), Warm: []WarmQuery{
		{Name: "gone", Run: func(*gorm.DB) error { runtime.Goexit(); return nil }},
		warmOne(1),
	}})
	ready(t, db)
	equal(t, "reported", len(log.lines("query=gone")), 1)
	equal(t, "entries", db.cache.Stats().Entries, 1)
}

func TestCloseEndsWarming(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	db := open(t, database(t), Config{Warm: []WarmQuery{{Name: "endless", Run: func(db *gorm.DB) error {
		close(began)
		return db.Exec("SELECT pg_sleep(3600)").Error
	}}}})
	go func() { _ = db.cache.Ready(context.Background()) }()
	<-began
	closed := make(chan error, 1)
	go func() { closed <- db.cache.Close() }()
	select {
	case err := <-closed:
		must(t, err)
	case <-time.After(60 * time.Second):
		t.Fatal("Close waits for a query without end")
	}
}

// C16: what a warming query has read before a write is not served after it.
func TestC16WarmingRacesAWrite(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		cfg.Warm = []WarmQuery{warmOne(1)}
		db := open(t, database(t), cfg)
		parked, release := db.seen.park()
		defer release()
		done := make(chan error, 1)
		go func() { done <- db.cache.Ready(context.Background()) }()
		<-parked // the warming query has read, and has not filled yet
		db.setPrice(t, 1, 77)
		release()
		must(t, <-done)
		equal(t, "price", db.price(t, 1), 77)
		equal(t, "again", db.price(t, 1), 77)
	})
}

// C16: the batches of FindInBatches are results of their own, and a write between
// two passes shows.
func TestC16FindInBatchesAndCountThenFind(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		sum := func() (sum, rows int64) {
			t.Helper()
			var batch []product
			must(t, db.FindInBatches(&batch, 30, func(*gorm.DB, int) error {
				for _, p := range batch {
					sum += p.Price
					rows++
				}
				return nil
			}).Error)
			return sum, rows
		}
		page := func() (n int64, found int) {
			t.Helper()
			var ps []product
			tx := db.Model(&product{}).Where("price > ?", 500)
			must(t, tx.Count(&n).Error)
			must(t, tx.Limit(20).Find(&ps).Error)
			return n, len(ps)
		}
		for range 2 {
			total, rows := sum()
			equal(t, "sum", total, 50500)
			equal(t, "rows", rows, 100)
			n, found := page()
			equal(t, "count", n, 50)
			equal(t, "found", found, 20)
		}
		equal(t, "queries: four batches, a count, a page", db.seen.queries.Load(), 6)
		db.setPrice(t, 100, 0)
		total, _ := sum()
		equal(t, "sum after a write", total, 49500)
		n, _ := page()
		equal(t, "count after a write", n, 49)
	})
}

package cachehook

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// openOnSpot opens a cache that leads on the spot whatever it has read before, and
// has read a product.
func openOnSpot(t *testing.T, cfg Config) *instance {
	t.Helper()
	db := openPrepared(t, database(t), cfg, &gorm.Config{}, func(c *Cache) { c.quick = math.MaxUint32 - 1 })
	db.price(t, 2)
	return db
}

func TestC14WhoLeadsDependsOnWhatTheQueryTookBefore(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	var onSpot bool
	charge := func(context.Context, *hook.Record) error {
		onSpot = strings.Contains(string(debug.Stack()), "leadOnSpot")
		return nil
	}
	db.seen.charge.Store(&charge)
	db.cache.quick = 0
	db.price(t, 1)
	equal(t, "a query that nobody has made is led on the spot", onSpot, false)
	db.cache.quick = math.MaxUint32 - 1
	db.price(t, 2)
	equal(t, "a quick one is", onSpot, true)
	db.cache.quick = 0
	db.price(t, 3)
	equal(t, "a slow one is", onSpot, false)
}

// lock keeps reads of the products waiting, on the server, until it is taken back.
// waiting tells whether one of them does.
func (i *instance) lock(t *testing.T) (waiting func() bool, release func()) {
	t.Helper()
	pool, err := sql.Open("pgx", schemas.dsn)
	must(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	tx, err := pool.Begin()
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	var schema string
	must(t, i.WithContext(Skip(context.Background())).Raw("SELECT current_schema").Scan(&schema).Error)
	table := schema + ".products"
	_, err = tx.Exec("LOCK TABLE " + table + " IN ACCESS EXCLUSIVE MODE")
	must(t, err)
	waiting = func() (some bool) {
		must(t, pool.QueryRow("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::regclass)", table).Scan(&some))
		return some
	}
	return waiting, func() { must(t, tx.Rollback()) }
}

// The leader's caller takes the query with him when he leaves, on the server; those
// who wait and the cache get their answer all the same.
func TestC14QueryOfALeaderWhoLeavesIsBegunAnew(t *testing.T) {
	t.Parallel()
	db := openOnSpot(t, Config{})
	waiting, release := db.lock(t)
	before := db.seen.queries.Load()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	leader := make(chan error, 1)
	go func() { leader <- db.WithContext(ctx).First(&product{}, 1).Error }()
	eventually(t, "the leader waits for the lock", 30*time.Second, waiting)
	waiter := make(chan int64, 1)
	go func() { waiter <- db.price(t, 1) }()
	eventually(t, "the other waits for the leader", 30*time.Second, func() bool { return db.cache.Stats().Waiting == 1 })
	cancel()
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Fatalf("the leader's caller got %v", err)
	}
	equal(t, "callers that wait on", db.cache.Stats().Waiting, 1)
	release()
	equal(t, "the waiter", <-waiter, 10)
	equal(t, "price, from memory", db.price(t, 1), 10)
	equal(t, "charges", db.seen.queries.Load()-before, 1)
	noneInUse(t, db)
}

// An argument that the leader's caller may change, once he has left, is not used
// again: who waits asks for himself.
func TestC14ArgumentsOfALeaderWhoLeavesAreHisOwn(t *testing.T) {
	t.Parallel()
	db := openOnSpot(t, Config{})
	price := func(ctx context.Context, id int64) (price int64, err error) {
		var p product
		err = db.WithContext(ctx).Where("id = ?", &id).First(&p).Error
		id = 0
		return p.Price, err
	}
	_, err := price(context.Background(), 2)
	must(t, err)
	waiting, release := db.lock(t)
	before := db.seen.queries.Load()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	leader := make(chan error, 1)
	go func() {
		_, err := price(ctx, 1)
		leader <- err
	}()
	eventually(t, "the leader waits for the lock", 30*time.Second, waiting)
	waiter := make(chan int64, 1)
	go func() {
		p, _ := price(context.Background(), 1)
		waiter <- p
	}()
	eventually(t, "the other waits for the leader", 30*time.Second, func() bool { return db.cache.Stats().Waiting == 1 })
	cancel()
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Fatalf("the leader's caller got %v", err)
	}
	release()
	equal(t, "the waiter", <-waiter, 10)
	equal(t, "charges", db.seen.queries.Load()-before, 2)
	noneInUse(t, db)
}

func TestC14ManyMissesOnTheSpotAreOneQuery(t *testing.T) {
	t.Parallel()
	db := openOnSpot(t, Config{})
	before := db.seen.queries.Load()
	parked, release := db.seen.park()
	defer release()
	const many = 200
	var readers sync.WaitGroup
	var wrong atomic.Int64
	for range many {
		readers.Go(func() {
			var p product
			if err := db.First(&p, 1).Error; err != nil || p.Price != 10 {
				wrong.Add(1)
			}
		})
	}
	<-parked
	eventually(t, "the others wait", 30*time.Second, func() bool { return db.cache.Stats().Waiting == many-1 })
	release()
	readers.Wait()
	equal(t, "wrong answers", wrong.Load(), 0)
	equal(t, "queries", db.seen.queries.Load()-before, 1)
}

// Whose caller has all the patience in the world holds the others up for the time of
// a flight at most.
func TestC14WaitersLoseThePatienceThatALeaderHas(t *testing.T) {
	t.Parallel()
	db := openOnSpot(t, Config{FlightTimeout: 50 * time.Millisecond})
	parked, release := db.seen.park()
	defer release()
	leader := make(chan int64, 1)
	go func() { leader <- db.price(t, 1) }()
	<-parked
	equal(t, "a waiter, who goes his own way", db.price(t, 1), 10)
	queries := db.seen.queries.Load()
	equal(t, "the next, who leads", db.price(t, 1), 10)
	equal(t, "its queries", db.seen.queries.Load()-queries, 1)
	equal(t, "and who comes then", db.price(t, 1), 10)
	equal(t, "all queries", db.seen.queries.Load()-queries, 1)
	release()
	equal(t, "the leader", <-leader, 10)
	eventually(t, "no flight is left", 30*time.Second, func() bool {
		db.cache.flights.mu.Lock()
		defer db.cache.flights.mu.Unlock()
		return len(db.cache.flights.flying) == 0
	})
}

// Close waits for no query of a caller's own, and what that reads is not kept.
func TestC14CloseLeavesALeaderOnTheSpotAlone(t *testing.T) {
	t.Parallel()
	db := openOnSpot(t, Config{})
	parked, release := db.seen.park()
	defer release()
	leader := make(chan int64, 1)
	go func() { leader <- db.price(t, 1) }()
	<-parked
	must(t, db.cache.Close())
	release()
	equal(t, "the leader", <-leader, 10)
	equal(t, "entries", db.cache.Stats().Entries, 0)
}

// What a leader on the spot cannot keep is his own: an error of the server's, and a
// result that is too large.
func TestC15WhatALeaderOnTheSpotCannotKeep(t *testing.T) {
	t.Parallel()
	db := openOnSpot(t, Config{MaxResult: 1000})
	quotient := func(by int) (v int, err error) {
		err = db.Raw("SELECT 100 / (id - ?) FROM products WHERE id = 3", by).Scan(&v).Error
		return v, err
	}
	many := func(n int) (ps []product) {
		must(t, db.Where("id <= ?", n).Order("id").Find(&ps).Error)
		return ps
	}
	loop := func(n int) (prices []int64) {
		rows, err := db.Model(&product{}).Select("price").Where("id <= ?", n).Order("id").Rows()
		must(t, err)
		defer rows.Close()
		for rows.Next() {
			var price int64
			must(t, rows.Scan(&price))
			prices = append(prices, price)
		}
		must(t, rows.Err())
		return prices
	}
	for range 2 {
		v, err := quotient(1)
		must(t, err)
		equal(t, "quotient", v, 50)
		if _, err := quotient(3); err == nil {
			t.Fatal("a division by zero went unnoticed")
		}
		equal(t, "few", len(many(3)), 3)
		all := many(100)
		equal(t, "all", len(all), 100)
		equal(t, "the last", all[99], product{100, "p100", 1000})
		equal(t, "few in a loop", len(loop(3)), 3)
		prices := loop(99)
		equal(t, "all in a loop", len(prices), 99)
		equal(t, "the last of the loop", prices[98], 990)
	}
	noneInUse(t, db)
}

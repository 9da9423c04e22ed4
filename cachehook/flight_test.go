package cachehook

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func TestC14ThousandMissesAreOneQuery(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		must(t, db.Raw("SELECT 1").Scan(new(int)).Error)
		before := db.seen.queries.Load()
		parked, release := db.seen.park()
		var wg sync.WaitGroup
		var wrong atomic.Int64
		for range 1000 {
			wg.Go(func() {
				var p product
				if err := db.First(&p, 1).Error; err != nil || p.Price != 10 {
					wrong.Add(1)
				}
			})
		}
		<-parked
		release()
		wg.Wait()
		equal(t, "wrong answers", wrong.Load(), 0)
		if n := db.seen.queries.Load() - before; n != 1 {
			t.Fatalf("%d queries: %+v", n, db.cache.Stats())
		}
	})
}

// eachLeader runs a test with leaders whose work is done for them on another goroutine,
// as that of slow queries, and with such as do it themselves.
func eachLeader(t *testing.T, test func(t *testing.T, db *instance, onSpot bool)) {
	for name, quick := range map[string]uint32{"elsewhere": 0, "on the spot": math.MaxUint32 - 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openPrepared(t, database(t), Config{}, &gorm.Config{}, func(c *Cache) { c.quick = quick })
			db.price(t, 2) // the catalogue has been read, and it is known what a query takes
			test(t, db, quick > 0)
		})
	}
}

func TestC14LeaderCancelled(t *testing.T) {
	t.Parallel()
	eachLeader(t, testLeaderCancelled)
}

func testLeaderCancelled(t *testing.T, db *instance, _ bool) {
	parked, release := db.seen.park()
	defer release()
	ctx, cancel := context.WithCancel(context.Background())
	leader := make(chan error, 1)
	go func() { leader <- db.WithContext(ctx).First(&product{}, 1).Error }()
	<-parked
	waiter := make(chan int64, 1)
	go func() { waiter <- db.price(t, 1) }()
	cancel()
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Fatalf("the leader's caller got %v", err)
	}
	release()
	equal(t, "the waiter", <-waiter, 10)
	equal(t, "queries", db.seen.queries.Load(), 2)
	equal(t, "price", db.price(t, 1), 10)
	equal(t, "the flight has filled", db.seen.queries.Load(), 2)
}

func TestC14WaiterKeepsItsOwnContext(t *testing.T) {
	t.Parallel()
	eachLeader(t, testWaiterKeepsItsOwnContext)
}

func testWaiterKeepsItsOwnContext(t *testing.T, db *instance, _ bool) {
	parked, release := db.seen.park()
	defer release()
	leader := make(chan int64, 1)
	go func() { leader <- db.price(t, 1) }()
	<-parked
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := db.WithContext(ctx).First(&product{}, 1).Error; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the waiter got %v", err)
	}
	release()
	equal(t, "the leader", <-leader, 10)
}

func TestC14PanicAndGoexitOfTheFlight(t *testing.T) {
	t.Parallel()
	eachLeader(t, testPanicAndGoexit)
}

func testPanicAndGoexit(t *testing.T, db *instance, onSpot bool) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		var once atomic.Bool
		there, goOn := make(chan struct{}), make(chan struct{})
		f := func(*hook.Record) {
			if once.CompareAndSwap(false, true) {
				close(there)
				<-goOn
				end()
			}
		}
		db.seen.done.Store(&f)
		type answer struct {
			price    int64
			panicked any
		}
		read := func() (a answer) {
			defer func() { a.panicked = recover() }()
			var p product
			must(t, db.First(&p, 1).Error)
			a.price = p.Price
			return a
		}
		leader, waiter := make(chan answer, 1), make(chan answer, 1)
		go func() {
			defer close(leader)
			leader <- read()
		}()
		<-there
		go func() { waiter <- read() }()
		eventually(t, "the waiter waits", 5*time.Second, func() bool { return db.cache.Stats().Waiting == 1 })
		close(goOn)
		got, answers := <-leader
		switch {
		case name == "panic":
			equal(t, "the leader's panic", got.panicked, any("boom"))
		case onSpot:
			equal(t, "the leader answers, whose goroutine it was", answers, false)
		default:
			equal(t, "the leader after Goexit", got, answer{price: 10})
		}
		equal(t, name+": the waiter", <-waiter, answer{price: 10})
		db.seen.done.Store(nil)
		equal(t, name+": afterwards", db.price(t, 1), 10)
		must(t, db.cache.InvalidateTables(context.Background(), "products"))
	}
}

type userKey struct{}

// A refusal of the flight's leader is its own: the others hand leadership on.
func TestC14RefusedLeaderHandsOn(t *testing.T) {
	t.Parallel()
	eachLeader(t, testRefusedLeaderHandsOn)
}

func testRefusedLeaderHandsOn(t *testing.T, db *instance, _ bool) {
	limited := errors.New("limited")
	there, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	charge := func(ctx context.Context, _ *hook.Record) error {
		if ctx.Value(userKey{}) == "greedy" {
			once.Do(func() { close(there) })
			<-goOn
			return limited
		}
		return nil
	}
	db.seen.charge.Store(&charge)
	greedy := make(chan error, 1)
	go func() {
		greedy <- db.WithContext(context.WithValue(context.Background(), userKey{}, "greedy")).First(&product{}, 1).Error
	}()
	<-there
	var wg sync.WaitGroup
	var wrong atomic.Int64
	for range 20 {
		wg.Go(func() {
			var p product
			if err := db.First(&p, 1).Error; err != nil || p.Price != 10 {
				wrong.Add(1)
			}
		})
	}
	eventually(t, "the others wait", 5*time.Second, func() bool { return db.cache.Stats().Waiting == 20 })
	close(goOn)
	wg.Wait()
	if err := <-greedy; !errors.Is(err, limited) {
		t.Fatalf("the refused one got %v", err)
	}
	equal(t, "wrong answers of the others", wrong.Load(), 0)
	equal(t, "refused", db.seen.count(hook.Refused), 1)
	equal(t, "queries: the first, the refused, one for all", db.seen.queries.Load(), 3)
}

// A write between the leader's read and a late waiter: they have other stamps.
func TestC14LateWaiterDoesNotJoinAnOldFlight(t *testing.T) {
	t.Parallel()
	eachLeader(t, testLateWaiter)
}

func testLateWaiter(t *testing.T, db *instance, _ bool) {
	parked, release := db.seen.park()
	defer release()
	old := make(chan int64, 1)
	go func() { old <- db.price(t, 1) }()
	<-parked
	db.setPrice(t, 1, 77)
	equal(t, "the late waiter", db.price(t, 1), 77)
	release()
	equal(t, "the old flight", <-old, 10)
}

func TestC14CallerOfALostFlightIsChargedOnce(t *testing.T) {
	t.Parallel()
	db := openPrepared(t, database(t), Config{}, &gorm.Config{}, func(c *Cache) { c.quick = 0 })
	db.price(t, 2) // the catalogue has been read
	before := db.seen.queries.Load()
	var once sync.Once
	lost := false
	f := func(*hook.Record) {
		once.Do(func() { lost = true })
		if lost {
			lost = false
			runtime.Goexit()
		}
	}
	db.seen.done.Store(&f)
	equal(t, "price", db.price(t, 1), 10)
	equal(t, "charges", db.seen.queries.Load()-before, 1)
	equal(t, "misses", db.seen.looked(hook.Miss), 2)
}

// Whoever flies one flight flies the next one; not all that were needed at once stay.
func TestC14IdlePilotsFlyTheNextFlightAndGoWithTheLast(t *testing.T) {
	t.Parallel()
	var g flights
	fly := func(name string, work func()) *flight {
		f, leads := g.join(name)
		equal(t, name+" leads", leads, true)
		g.start(name, f, func() (landing, func()) { work(); return landing{verdict: landed}, nil })
		return f
	}
	const many = 3 * maxIdlePilots
	var flying []*flight
	park := make(chan struct{})
	for i := range many {
		flying = append(flying, fly(fmt.Sprint(i), func() { <-park }))
	}
	close(park)
	for _, f := range flying {
		<-f.done
		equal(t, "verdict", f.verdict, landed)
	}
	eventually(t, "some pilots wait", 30*time.Second, func() bool { return g.idle.Load() == maxIdlePilots })

	for _, end := range []func(){runtime.Goexit, func() { panic("x") }, func() {}} {
		for i := range many { // more often than there are pilots
			<-fly(fmt.Sprint("ends", i), end).done
		}
	}
	g.stop() // a pilot that is left is found by TestMain
	if _, leads := g.join("late"); leads {
		t.Error("a flight starts after all have ended")
	}
}

// What a leader does on its own goroutine must not leave the others waiting.
func TestC14AShortWorkLandsHoweverItEnds(t *testing.T) {
	t.Parallel()
	var g flights
	for name, test := range map[string]struct {
		work func() (landing, bool)
		want verdict
	}{
		"found":  {func() (landing, bool) { return landing{verdict: landed}, true }, landed},
		"panic":  {func() (landing, bool) { panic("x") }, alone},
		"goexit": {func() (landing, bool) { runtime.Goexit(); return landing{verdict: landed}, false }, alone},
	} {
		f, _ := g.join(name)
		go func() {
			defer func() { _ = recover() }()
			g.short(name, f, test.work)
		}()
		<-f.done
		equal(t, name, f.verdict, test.want)
	}
	f, _ := g.join("not found")
	equal(t, "it is over", g.short("not found", f, func() (landing, bool) { return landing{}, false }), false)
	select {
	case <-f.done:
		t.Error("it has landed before it was started")
	default:
	}
	g.start("not found", f, func() (landing, func()) { return landing{verdict: landed}, nil })
	<-f.done
	g.stop()
}

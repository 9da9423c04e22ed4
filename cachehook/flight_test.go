package cachehook

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

func TestC14LeaderCancelled(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	db.price(t, 2) // the catalogue has been read
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
	db := open(t, database(t), Config{})
	db.price(t, 2)
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
	db := open(t, database(t), Config{})
	db.price(t, 2)
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
		go func() { leader <- read() }()
		<-there
		go func() { waiter <- read() }()
		eventually(t, "the waiter waits", 5*time.Second, func() bool { return db.cache.Stats().Waiting == 1 })
		close(goOn)
		got := <-leader
		if name == "panic" {
			equal(t, "the leader's panic", got.panicked, any("boom"))
		} else {
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
	db := open(t, database(t), Config{})
	db.price(t, 2)
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
	db := open(t, database(t), Config{})
	db.price(t, 2)
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
	db := open(t, database(t), Config{})
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

package cachehook

import (
	"context"
	"errors"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestC01ParkedFillCannotPublishAnOldRow(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		parked, release := db.seen.park()
		defer release()
		old := make(chan int64, 1)
		go func() {
			var p product
			db.First(&p, 1)
			old <- p.Price
		}()
		<-parked
		db.setPrice(t, 1, 77)
		equal(t, "while the old reader is parked", db.price(t, 1), 77)
		release()
		equal(t, "the old reader's own answer", <-old, 10)
		for range 3 {
			equal(t, "after the late fill", db.price(t, 1), 77)
		}
	})
}

func TestC01ParkedFillOfAnotherInstance(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	parked, release := a.seen.park()
	defer release()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.First(&product{}, 1)
	}()
	<-parked
	b.setPrice(t, 1, 77)
	release()
	<-done
	eventually(t, "the old fill has arrived in Redis", 5*time.Second, func() bool {
		keys, err := rdb.Keys(context.Background(), "infra:"+name+":cache:e:*").Result()
		return err == nil && len(keys) == 1
	})
	equal(t, "b", b.price(t, 1), 77)
	eventually(t, "a sees the write", cfg.withDefaults().Lease+2*time.Second, func() bool { return a.price(t, 1) == 77 })
	equal(t, "b after a's fills", b.price(t, 1), 77)
}

func TestC03RollbackInvalidatesNothing(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		equal(t, "before", db.price(t, 1), 10)
		boom := errors.New("boom")
		err := db.Transaction(func(tx *gorm.DB) error {
			must(t, tx.Model(&product{ID: 1}).Update("price", 99).Error)
			var p product
			must(t, tx.First(&p, 1).Error)
			equal(t, "own write inside", p.Price, 99)
			equal(t, "outside", db.price(t, 1), 10)
			return boom
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = db.Transaction(func(tx *gorm.DB) error {
				must(t, tx.Model(&product{ID: 1}).Update("price", 98).Error)
				panic(boom)
			})
		}()
		queries := db.seen.queries.Load()
		equal(t, "after", db.price(t, 1), 10)
		equal(t, "queries after roll-backs", db.seen.queries.Load(), queries)
	})
}

func TestC03CommitIsSeenAfterAndNotBefore(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		equal(t, "before", db.price(t, 1), 10)
		tx := db.Begin()
		must(t, tx.Model(&product{ID: 1}).Update("price", 99).Error)
		tx.SavePoint("a")
		must(t, tx.Model(&product{ID: 1}).Update("price", 100).Error)
		must(t, tx.RollbackTo("a").Error)
		equal(t, "before COMMIT", db.price(t, 1), 10)
		must(t, tx.Commit().Error)
		equal(t, "after COMMIT", db.price(t, 1), 99)
	})
}

// A COMMIT that the server refuses comes after the mark.
func TestC03RefusedCommitTakesItsMarkAway(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		dsn := database(t)
		exec(t, dsn, `ALTER TABLE products ADD CONSTRAINT u UNIQUE (name) DEFERRABLE INITIALLY DEFERRED`)
		db := open(t, dsn, cfg)
		ready(t, db)
		equal(t, "before", db.price(t, 1), 10)
		if err := db.Model(&product{ID: 2}).Update("name", "p1").Error; err == nil {
			t.Fatal("the constraint did not hold")
		}
		queries := db.seen.queries.Load()
		equal(t, "after", db.price(t, 1), 10)
		equal(t, "queries after the refused COMMIT", db.seen.queries.Load(), queries)
	})
}

// A writer that dies between COMMIT and its stamp leaves a mark, and nothing
// else.
func TestC02DeadWriterLeavesNothingStale(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	db := open(t, dsn, Config{Redis: rdb, Name: name})
	ready(t, db)
	equal(t, "before", db.price(t, 1), 10)

	dead := *db.cache.store.(*redisStore)
	dead.markTTL = 300 * time.Millisecond
	marked := time.Now()
	must(t, errOf(dead.mark(context.Background(), []string{db.table(t, "products"), wholeTag(db.table(t, "products"))}, "dead", false)))
	exec(t, dsn, `UPDATE products SET price = 55 WHERE id = 1`)
	eventually(t, "the mark is heard of", 2*time.Second, func() bool { return db.price(t, 1) == 55 })
	var p product
	for time.Since(marked) < dead.markTTL-100*time.Millisecond {
		p = product{}
		must(t, db.First(&p, 1).Error)
		equal(t, "while the mark stands", p.Price, 55)
	}
	equal(t, "fills while the mark stood", db.cache.Stats().Fills, 1)
	eventually(t, "caching goes on when the mark has run out", 5*time.Second, func() bool {
		equal(t, "price", db.price(t, 1), 55)
		return db.cache.Stats().Fills > 1
	})
}

func TestC04OtherInstanceIsLateByTheLeaseAtMost(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	for i := int64(1); i <= 10; i++ {
		b.price(t, 1)
		equal(t, "b's hit", b.price(t, 1), b.price(t, 1))
		a.setPrice(t, 1, 1000+i)
		wrote := time.Now()
		for b.price(t, 1) != 1000+i {
			if late := time.Since(wrote); late > 500*time.Millisecond+200*time.Millisecond {
				t.Fatalf("round %d: b is %v late", i, late)
			}
		}
	}
	if b.seen.count(hook.L1) == 0 {
		t.Fatal("b's memory was not in use")
	}
}

func TestC04RevalidatingInstanceIsNeverLate(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	a := open(t, dsn, Config{Redis: rdb, Name: name})
	b := open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, a, b)
	for i := int64(1); i <= 50; i++ {
		a.setPrice(t, 1, 1000+i)
		equal(t, "b", b.price(t, 1), 1000+i)
		equal(t, "b again", b.price(t, 1), 1000+i)
	}
	if b.seen.count(hook.L1) < 40 {
		t.Fatal("b's memory was not in use")
	}
}

// A subscriber that hears nothing must not be trusted past its lease.
func TestC04BlackHoledSubscriber(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server := testbed.SharedRedis(t)
	proxy := testbed.NewProxy(t, server.Addr())
	dsn := database(t)
	name := namespace(t)
	a := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Name: name})
	b := open(t, dsn, Config{Redis: clientOf(t, proxy.Addr()), Name: name, Lease: 200 * time.Millisecond, Timeout: 50 * time.Millisecond})
	ready(t, a, b)
	equal(t, "b fills", b.price(t, 1), 10)
	equal(t, "b hits", b.price(t, 1), 10)
	proxy.Blackhole()
	a.setPrice(t, 1, 77)
	wrote := time.Now()
	for b.price(t, 1) != 77 {
		if late := time.Since(wrote); late > 400*time.Millisecond {
			t.Fatalf("b is %v late, with a lease of 200ms", late)
		}
	}
	must(t, proxy.Restore())
	eventually(t, "the channel proves itself again", 10*time.Second, func() bool { return b.cache.Stats().Trusted })
	equal(t, "b", b.price(t, 1), 77)
}

// A write falls between the loss of the subscription and the next one.
func TestC04WriteBetweenTwoSubscriptions(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server := testbed.SharedRedis(t)
	proxy := testbed.NewProxy(t, server.Addr())
	dsn := database(t)
	name := namespace(t)
	a := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Name: name})
	b := open(t, dsn, Config{Redis: clientOf(t, proxy.Addr()), Name: name, Lease: time.Second})
	ready(t, a, b)
	for i := int64(1); i <= 3; i++ {
		b.price(t, 1)
		b.price(t, 1)
		proxy.Cut()
		a.setPrice(t, 1, 100+i)
		must(t, proxy.Restore())
		eventually(t, "b trusts its channel again", 10*time.Second, func() bool { return b.cache.Stats().Trusted })
		eventually(t, "b sees the write", time.Second+200*time.Millisecond, func() bool { return b.price(t, 1) == 100+i })
	}
}

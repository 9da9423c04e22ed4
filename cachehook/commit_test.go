package cachehook

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// COMMIT's answer is lost, or COMMIT itself: either way others see what has
// become of it, at once where they ask and a lease later where they do not.
func TestC02LostCommitWithOtherInstances(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]int64{"before": 10, "after": 77} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			rdb, name := client(t)
			dsn := database(t)
			primary := testbed.SharedCluster(t).Primary().Addr()
			proxy := testbed.NewProxy(t, primary)
			writer := open(t, strings.Replace(dsn, primary, proxy.Addr(), 1), Config{Redis: rdb, Name: name})
			leased := open(t, dsn, Config{Redis: rdb, Name: name})
			asking := open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
			ready(t, writer, leased, asking)
			for _, db := range []*instance{writer, leased, asking} {
				for range 2 {
					equal(t, "before", db.price(t, 1), 10)
				}
			}
			if how == "before" {
				proxy.CutBefore("commit")
			} else {
				proxy.CutAfter("commit")
			}
			if err := writer.Model(&product{ID: 1}).Update("price", 77).Error; err == nil {
				t.Fatal("the cut was not noticed")
			}
			returned := time.Now()
			equal(t, "the writer", writer.price(t, 1), want)
			equal(t, "who asks", asking.price(t, 1), want)
			hits := leased.seen.count(hook.L1)
			eventually(t, "results are cached again", time.Minute, func() bool {
				began := time.Now()
				if p := leased.price(t, 1); p != want && began.Sub(returned) > leased.cache.cfg.Lease {
					t.Fatalf("%v later: %d", began.Sub(returned), p)
				}
				return leased.seen.count(hook.L1) > hits+5
			})
			equal(t, "afterwards", leased.price(t, 1), want)
		})
	}
}

// Two writers change one table; one begins its COMMIT before the other's and ends
// it after. Its mark stands although the other has given a new stamp meanwhile.
func TestC02TwoWritersOfOneTagOneSlow(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	slow := open(t, dsn, Config{Redis: rdb, Name: name})
	quick := open(t, dsn, Config{Redis: rdb, Name: name})
	leased := open(t, dsn, Config{Redis: rdb, Name: name})
	asking := open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, slow, quick, leased, asking)
	for _, db := range []*instance{slow, quick, leased, asking} {
		for range 2 {
			equal(t, "before", db.price(t, 1), 10)
		}
	}
	beforeCommit(t, slow, func() {
		quick.setPrice(t, 2, 22)
		fills := asking.cache.Stats().Fills + quick.cache.Stats().Fills
		for range 5 {
			equal(t, "what the quick one wrote, where it asks", asking.price(t, 2), 22)
			equal(t, "what the quick one wrote, where it did", quick.price(t, 2), 22)
			equal(t, "the slow one's", asking.price(t, 1), 10)
			equal(t, "the slow one's", quick.price(t, 1), 10)
		}
		equal(t, "fills while a mark stood", asking.cache.Stats().Fills+quick.cache.Stats().Fills, fills)
	})
	slow.setPrice(t, 1, 77)
	wrote := time.Now()
	for _, db := range []*instance{slow, asking} {
		equal(t, "at once", db.price(t, 1), 77)
	}
	for _, db := range []*instance{leased, quick} {
		eventually(t, "a lease later", 10*time.Second, func() bool {
			began := time.Now()
			p := db.price(t, 1)
			if late := began.Sub(wrote); p != 77 && late > db.cache.cfg.Lease {
				t.Fatalf("%v late", late)
			}
			return p == 77
		})
	}
}

// A write outside transactions goes on as well when Redis cannot be told, and
// nobody is served in this process what it has changed.
func TestC06CommitAndQuarantineOfAutocommitWrites(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	proxy := testbed.NewProxy(t, testbed.SharedRedis(t).Addr())
	dsn := database(t)
	name := namespace(t)
	a := open(t, dsn, Config{Redis: clientOf(t, proxy.Addr()), Name: name})
	b := open(t, dsn, Config{Redis: clientOf(t, testbed.SharedRedis(t).Addr()), Name: name})
	ready(t, a, b)
	equal(t, "a", a.price(t, 1), 10)
	equal(t, "b", b.price(t, 1), 10)
	proxy.Cut()
	must(t, a.Exec("UPDATE products SET price = 77 WHERE id = 1").Error)
	for range 5 {
		equal(t, "a", a.price(t, 1), 77)
	}
	equal(t, "tags that Redis has not been told of", a.cache.Stats().Quarantined > 0, true)
	must(t, proxy.Restore())
	eventually(t, "b hears of it", time.Minute, func() bool { return b.price(t, 1) == 77 })
	eventually(t, "the quarantine ends", time.Minute, func() bool { return a.cache.Stats().Quarantined == 0 })
	equal(t, "a", a.price(t, 1), 77)
}

// Redis dies between the mark and COMMIT.
func TestC06RedisKilledAtCommit(t *testing.T) {
	t.Parallel()
	for policy, want := range map[FailurePolicy]int64{CommitAndQuarantine: 77, FailWrite: 77} {
		t.Run(policy.String(), func(t *testing.T) {
			t.Parallel()
			server := own(t)
			dsn := database(t)
			a := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), OnRedisFailure: policy})
			b := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), OnRedisFailure: policy})
			ready(t, a, b)
			equal(t, "a", a.price(t, 1), 10)
			equal(t, "b", b.price(t, 1), 10)
			beforeCommit(t, a, func() { must(t, server.Kill()) })
			// It has been told before, and the COMMIT is not taken back.
			must(t, a.Model(&product{ID: 1}).Update("price", 77).Error)
			wrote := time.Now()
			for range 5 {
				equal(t, "a", a.price(t, 1), want)
			}
			eventually(t, "b", 10*time.Second, func() bool {
				began := time.Now()
				p := b.price(t, 1)
				if late := began.Sub(wrote); p != want && late > b.cache.cfg.Lease {
					t.Fatalf("b is %v late", late)
				}
				return p == want
			})
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			must(t, server.Start(ctx))
			eventually(t, "the quarantine ends", time.Minute, func() bool { return a.cache.Stats().Quarantined == 0 })
			equal(t, "a", a.price(t, 1), want)
			equal(t, "b", b.price(t, 1), want)
		})
	}
}

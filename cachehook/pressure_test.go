package cachehook

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// Redis takes five seconds for an answer: statements wait for its budget, and
// then not even for that.
func TestC06RedisFiveSecondsSlow(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	proxy := testbed.NewProxy(t, testbed.SharedRedis(t).Addr())
	db := open(t, database(t), Config{Redis: clientOf(t, proxy.Addr()), Name: namespace(t), Timeout: 50 * time.Millisecond})
	ready(t, db)
	eventually(t, "it is cached", time.Minute, func() bool {
		db.price(t, 1)
		return db.cache.Stats().L1Hits > 0
	})
	proxy.SetDelay(2500 * time.Millisecond)
	began := time.Now()
	for price := int64(100); price < 120; price++ {
		db.setPrice(t, 1, price)
		equal(t, "price", db.price(t, 1), price)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("20 writes and reads took %v", took)
	}
	proxy.SetDelay(0)
	eventually(t, "the quarantine ends", time.Minute, func() bool { return db.cache.Stats().Quarantined == 0 })
	equal(t, "price", db.price(t, 1), 119)
}

// A tag is evicted again and again: what depends on it is read anew.
func TestC06EvictedStamp(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	a := open(t, dsn, Config{Redis: rdb, Name: name})
	b := open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, a, b)
	table := a.table(t, "products")
	prefix := "infra:" + name + ":cache:t:"
	keys := []string{prefix + table, prefix + wholeTag(table), prefix + rowTag(table, "1")}
	for i := int64(1); i <= 20; i++ {
		b.price(t, 1)
		must(t, rdb.Del(context.Background(), keys...).Err())
		if i%2 == 0 {
			b.price(t, 1) // mints one
		}
		a.setPrice(t, 1, 100+i)
		if i%3 == 0 {
			must(t, rdb.Del(context.Background(), keys...).Err())
		}
		for range 2 {
			equal(t, "b", b.price(t, 1), 100+i)
			equal(t, "a", a.price(t, 1), 100+i)
		}
	}
}

// versions are rows whose price only grows, each with one writer.
type versions struct {
	committed [5]atomic.Int64
	reads     atomic.Int64
}

// run writes and reads until the time is over. A read shows at least what was
// committed for lease before it began.
func (v *versions) run(t *testing.T, lease time.Duration, until time.Time, nodes ...*instance) {
	var wg sync.WaitGroup
	for id := range v.committed {
		v.committed[id].Store(int64(id+1) * 10)
		wg.Go(func() {
			node := nodes[id%len(nodes)]
			for time.Now().Before(until) {
				next := v.committed[id].Load() + 1
				if err := node.Model(&product{ID: int64(id + 1)}).Update("price", next).Error; err != nil {
					t.Error(err)
					return
				}
				at := time.AfterFunc(lease, func() { v.committed[id].Store(next) })
				time.Sleep(lease + 50*time.Millisecond) //nolint:forbidigo // reads shall have time to hit
				at.Stop()
				v.committed[id].Store(next)
			}
		})
		for _, node := range nodes {
			wg.Go(func() {
				for time.Now().Before(until) {
					least := v.committed[id].Load()
					var p product
					if err := node.First(&p, id+1).Error; err != nil {
						t.Error(err)
						return
					}
					if p.Price < least {
						t.Errorf("row %d: read %d, and %d was committed a lease before", id+1, p.Price, least)
					}
					v.reads.Add(1)
				}
			})
		}
	}
	wg.Wait()
}

// Memory of Redis is full, and it evicts whatever was not used lately: entries,
// stamps, what it keeps for itself.
func TestC06AllKeysLRUUnderPressure(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server := testbed.NewRedis(t, testbed.RedisConfig{Settings: map[string]string{"maxmemory": "8mb", "maxmemory-policy": "allkeys-lru"}})
	dsn := database(t)
	rdb := clientOf(t, server.Addr())
	cfg := Config{Redis: rdb, Lease: 100 * time.Millisecond}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	until := time.Now().Add(3 * time.Second)
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		ballast := strings.Repeat("x", 20_000)
		for i := 0; ctx.Err() == nil; i++ {
			_ = rdb.Set(ctx, fmt.Sprintf("ballast:%d", i), ballast, 0).Err()
		}
	})
	var v versions
	v.run(t, cfg.Lease, until, a, b)
	wg.Wait()
	info, err := rdb.Info(context.Background(), "stats").Result()
	must(t, err)
	if strings.Contains(info, "evicted_keys:0\r") {
		t.Fatal("nothing was evicted")
	}
	t.Logf("%d reads, %d hits", v.reads.Load(), a.cache.Stats().L1Hits+b.cache.Stats().L1Hits)
	eventually(t, "memory is in use, at the latest when the pressure is over", time.Minute, func() bool {
		a.price(t, 1)
		return a.cache.Stats().L1Hits > 0
	})
}

// FLUSHALL again and again, where what memory holds counts for a lease.
func TestC06FlushUnderLoadWithALease(t *testing.T) {
	t.Parallel()
	server := own(t)
	dsn := database(t)
	cfg := Config{Redis: clientOf(t, server.Addr()), Lease: 100 * time.Millisecond}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	until := time.Now().Add(3 * time.Second)
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	var wg sync.WaitGroup
	var flushes atomic.Int64
	wg.Go(func() {
		for tick := time.NewTicker(150 * time.Millisecond); ; flushes.Add(1) {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				_ = server.FlushAll(ctx)
			}
		}
	})
	var v versions
	v.run(t, cfg.Lease, until, a, b)
	wg.Wait()
	if flushes.Load() < 5 {
		t.Fatalf("%d flushes", flushes.Load())
	}
	eventually(t, "memory is in use, at the latest when nobody flushes", time.Minute, func() bool {
		a.price(t, 1)
		return a.cache.Stats().L1Hits > 0
	})
}

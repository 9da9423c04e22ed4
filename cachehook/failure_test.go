package cachehook

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// own starts a Redis that the test may hurt.
func own(t *testing.T) *testbed.Redis {
	t.Helper()
	testbed.RequireRedis(t)
	return testbed.NewRedis(t, testbed.RedisConfig{})
}

func TestC06RedisFrozenAndThawed(t *testing.T) {
	t.Parallel()
	server := own(t)
	db := open(t, database(t), Config{Redis: clientOf(t, server.Addr()), Timeout: 50 * time.Millisecond})
	ready(t, db)
	db.price(t, 1)
	equal(t, "hit", db.price(t, 1), 10)
	must(t, server.Freeze())
	began := time.Now()
	for i := int64(1); i <= 50; i++ {
		db.setPrice(t, 1, 100+i)
		equal(t, "price while Redis is frozen", db.price(t, 1), 100+i)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("50 writes and reads took %v", took)
	}
	if s := db.cache.Stats(); !s.BreakerOpen || s.Quarantined == 0 || s.RedisErrors == 0 {
		t.Fatalf("%+v", s)
	}
	must(t, server.Thaw())
	eventually(t, "the quarantine ends", 10*time.Second, func() bool { return db.cache.Stats().Quarantined == 0 })
	hits := db.seen.count(hook.L1)
	eventually(t, "memory serves again", 10*time.Second, func() bool {
		equal(t, "price", db.price(t, 1), 150)
		return db.seen.count(hook.L1) > hits
	})
}

func TestC06RedisKilledAndRestartedEmpty(t *testing.T) {
	t.Parallel()
	server := own(t)
	db := open(t, database(t), Config{Redis: clientOf(t, server.Addr())})
	ready(t, db)
	db.price(t, 1)
	must(t, server.Kill())
	for i := int64(1); i <= 20; i++ {
		db.setPrice(t, 1, 100+i)
		equal(t, "price without Redis", db.price(t, 1), 100+i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must(t, server.Start(ctx))
	hits := db.seen.count(hook.L1)
	eventually(t, "memory serves again", 10*time.Second, func() bool {
		equal(t, "price", db.price(t, 1), 120)
		return db.seen.count(hook.L1) > hits
	})
}

func TestC06RedisDownAtStart(t *testing.T) {
	t.Parallel()
	server := own(t)
	must(t, server.Kill())
	db := open(t, database(t), Config{Redis: clientOf(t, server.Addr())})
	equal(t, "price", db.price(t, 1), 10)
	db.setPrice(t, 1, 11)
	equal(t, "price", db.price(t, 1), 11)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := db.cache.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Ready: %v", err)
	}
}

func TestC06FlushUnderLoad(t *testing.T) {
	t.Parallel()
	server := own(t)
	dsn := database(t)
	a := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Lease: RevalidateAlways})
	b := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Lease: RevalidateAlways})
	ready(t, a, b)
	for i := int64(1); i <= 100; i++ {
		a.setPrice(t, 1, 100+i)
		if i%3 == 0 {
			must(t, server.FlushAll(context.Background()))
		}
		equal(t, "b", b.price(t, 1), 100+i)
		equal(t, "a", a.price(t, 1), 100+i)
	}
}

// A writer that is cut off from Redis goes on; it serves no old row itself, and
// tells the others as soon as it can.
func TestC06CommitAndQuarantine(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server := testbed.SharedRedis(t)
	proxy := testbed.NewProxy(t, server.Addr())
	dsn := database(t)
	name := namespace(t)
	a := open(t, dsn, Config{Redis: clientOf(t, proxy.Addr()), Name: name})
	b := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Name: name})
	ready(t, a, b)
	equal(t, "b", b.price(t, 1), 10)
	equal(t, "a", a.price(t, 1), 10)
	proxy.Cut()
	a.setPrice(t, 1, 77)
	for range 5 {
		equal(t, "a", a.price(t, 1), 77)
	}
	must(t, proxy.Restore())
	eventually(t, "b hears of it", 10*time.Second, func() bool { return b.price(t, 1) == 77 })
	equal(t, "a", a.price(t, 1), 77)
}

func TestC06FailWrite(t *testing.T) {
	t.Parallel()
	server := own(t)
	db := open(t, others(t), Config{Redis: clientOf(t, server.Addr()), OnRedisFailure: FailWrite})
	ready(t, db)
	equal(t, "before", db.price(t, 1), 10)
	must(t, server.Kill())
	err := db.Model(&product{ID: 1}).Update("price", 77).Error
	if !errors.Is(err, ErrInvalidation) {
		t.Fatalf("got %v", err)
	}
	err = db.Exec("UPDATE products SET price = 78 WHERE id = 1").Error
	if !errors.Is(err, ErrInvalidation) {
		t.Fatalf("autocommit: got %v", err)
	}
	equal(t, "the write did not happen", db.price(t, 1), 10)
	// Who caches what is known from Redis alone, and not for long without it.
	eventually(t, "writes of a table that nobody caches fail too", time.Minute, func() bool {
		err := db.Exec("UPDATE others SET n = 1").Error
		return errors.Is(err, ErrInvalidation)
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(t, server.Start(ctx)) // the client has been dialling it, and ends that sooner so
}

func TestC17CorruptForeignAndNewerPayloadsAreMisses(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	ctx := context.Background()
	for i, damage := range []func([]byte) []byte{
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		func([]byte) []byte { return []byte(`{"id":1}`) },
		func(b []byte) []byte { b[3]++; return b },
		func([]byte) []byte { return nil },
	} {
		a := open(t, dsn, Config{Redis: rdb, Name: name})
		ready(t, a)
		a.setPrice(t, 1, int64(100+i))
		for _, key := range keysOf(t, rdb, "infra:"+name+":cache:e:*") {
			must(t, rdb.Del(ctx, key).Err())
		}
		a.price(t, 1)
		var keys []string
		eventually(t, "the fill", 5*time.Second, func() bool {
			keys = keysOf(t, rdb, "infra:"+name+":cache:e:*")
			return len(keys) == 1
		})
		data, err := rdb.Get(ctx, keys[0]).Bytes()
		must(t, err)
		must(t, rdb.Set(ctx, keys[0], damage(data), time.Minute).Err())
		b := open(t, dsn, Config{Redis: rdb, Name: name})
		equal(t, "price", b.price(t, 1), int64(100+i))
		equal(t, "queries", b.seen.queries.Load(), 1)
		equal(t, "counted", b.cache.Stats().Corrupt, 1)
	}
}

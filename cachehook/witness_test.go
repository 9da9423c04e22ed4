package cachehook

import (
	"context"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// eachLease runs a test with a channel and without one.
func eachLease(t *testing.T, f func(t *testing.T, lease time.Duration)) {
	t.Run("lease", func(t *testing.T) {
		t.Parallel()
		f(t, 0)
	})
	t.Run("revalidate", func(t *testing.T) {
		t.Parallel()
		f(t, RevalidateAlways)
	})
}

// restore brings the server back with its last snapshot.
func restore(t *testing.T, server *testbed.Redis) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must(t, server.Kill())
	must(t, server.Start(ctx))
}

// named waits until the cache has looked at its Redis.
func named(t *testing.T, db *instance) {
	t.Helper()
	eventually(t, "the server is named", 10*time.Second, func() bool {
		return db.cache.cfg.Redis.Exists(context.Background(), db.cache.witness.key).Val() == 1
	})
}

func TestC06RedisRestartedWithOlderSnapshot(t *testing.T) {
	t.Parallel()
	eachLease(t, func(t *testing.T, lease time.Duration) {
		server := own(t)
		ctx := context.Background()
		rdb := clientOf(t, server.Addr())
		db := open(t, database(t), Config{Redis: rdb, Lease: lease})
		ready(t, db)
		named(t, db)
		db.price(t, 1)
		equal(t, "hit", db.price(t, 1), 10)
		must(t, db.cache.Set(ctx, "k", []byte("old"), time.Minute, "mine"))
		eventually(t, "both are in Redis", 10*time.Second, func() bool { return len(keysOf(t, rdb, "*:e:*")) == 2 })
		_, err := server.Do(ctx, "SAVE")
		must(t, err)
		db.setPrice(t, 1, 11)
		must(t, db.cache.Invalidate(ctx, "mine"))
		restore(t, server)
		allowed := time.Now().Add(1500 * time.Millisecond)
		eventually(t, "Redis serves again", 20*time.Second, func() bool {
			if p := db.price(t, 1); p != 11 && time.Now().After(allowed) {
				t.Fatalf("price %d", p)
			}
			if v, ok := db.cache.Get(ctx, "k"); ok && time.Now().After(allowed) {
				t.Fatalf("by hand: %q", v)
			}
			return time.Now().After(allowed.Add(time.Second)) && db.cache.Stats().L1Hits > 10
		})
	})
}

// Who wrote after the snapshot may have ended before Redis comes back.
func TestC06RedisRestoredAfterTheWriterHasEnded(t *testing.T) {
	t.Parallel()
	eachLease(t, func(t *testing.T, lease time.Duration) {
		server := own(t)
		ctx := context.Background()
		rdb := clientOf(t, server.Addr())
		dsn := database(t)
		db := open(t, dsn, Config{Redis: rdb, Lease: lease})
		ready(t, db)
		named(t, db)
		db.price(t, 1)
		eventually(t, "it is in Redis", 10*time.Second, func() bool { return len(keysOf(t, rdb, "*:e:*")) == 1 })
		_, err := server.Do(ctx, "SAVE")
		must(t, err)
		db.setPrice(t, 1, 11)
		must(t, db.cache.Close())
		restore(t, server)
		eventually(t, "Redis is there", 10*time.Second, func() bool { return rdb.Ping(ctx).Err() == nil })
		later := open(t, dsn, Config{Redis: rdb, Lease: lease})
		ready(t, later)
		eventually(t, "the new name is written", 10*time.Second, func() bool {
			servers, written, err := later.cache.witness.servers(ctx)
			return err == nil && nameOfAll(servers) == written
		})
		equal(t, "price", later.price(t, 1), 11)
	})
}

func TestAnswersInDoubtAreNotUsed(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	db := open(t, database(t), Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, db)
	named(t, db)
	db.price(t, 1)
	db.price(t, 1)
	must(t, db.cache.Set(context.Background(), "k", []byte("v"), time.Minute))
	db.cache.end() // nobody looks any more
	db.cache.running.Wait()
	db.cache.witness.doubts.Add(1)
	before := db.cache.Stats().L1Hits
	equal(t, "price", db.price(t, 1), 10)
	equal(t, "hits", db.cache.Stats().L1Hits, before)
	if v, ok := db.cache.Get(context.Background(), "k"); ok {
		t.Fatalf("by hand: %q", v)
	}
}

func TestInfoField(t *testing.T) {
	t.Parallel()
	info := "# Server\r\nredis_version:7.0\r\nrun_id:abc\r\ntcp_port:1\r\n"
	equal(t, "id", infoField(info, "run_id"), "abc")
	equal(t, "none", infoField(info, "id"), "")
	equal(t, "first", infoField("a:b", "a"), "b")
}

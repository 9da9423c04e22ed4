package cachehook

import (
	"context"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// A Redis that is emptied after a writer has marked and before it commits has lost
// the mark. If it then does not hear of the commit either, because the writer cannot
// reach it or has died, nothing in it says that what others read meanwhile is old.
func TestC03RedisEmptiedBetweenMarkAndStamp(t *testing.T) {
	t.Parallel()
	for name, empty := range map[string]func(*testing.T, *testbed.Redis){
		"flushed": func(t *testing.T, r *testbed.Redis) { must(t, r.FlushAll(context.Background())) },
		"restarted": func(t *testing.T, r *testbed.Redis) {
			must(t, r.Kill())
			must(t, r.Start(context.Background()))
		},
	} {
		for mode, lease := range map[string]time.Duration{"lease": 0, "revalidate": RevalidateAlways} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				emptiedBeforeCommit(t, lease, empty)
			})
		}
	}
}

func emptiedBeforeCommit(t *testing.T, lease time.Duration, empty func(*testing.T, *testbed.Redis)) {
	server := own(t)
	proxy := testbed.NewProxy(t, server.Addr())
	dsn := database(t)
	cfg := Config{Redis: clientOf(t, server.Addr()), Lease: lease, Timeout: time.Second}
	b := openPrepared(t, dsn, cfg, &gorm.Config{}, func(c *Cache) {
		c.names.settle, c.names.lost = rosterSettle, c.markTTL+rosterSettle-rosterLease // as outside of tests
	})
	cfg.Redis, cfg.OnRedisFailure = clientOf(t, proxy.Addr()), FailWrite
	a := open(t, dsn, cfg)
	ready(t, a, b)
	a.catalogLoaded(t)
	eventually(t, "b keeps it", 30*time.Second, func() bool {
		asked := b.seen.queries.Load()
		equal(t, "b", b.price(t, 1), 10)
		return b.seen.queries.Load() == asked
	})

	// reads has b read for a time, in which a roster that follows none would be used.
	reads := func(what string, want int64) {
		t.Helper()
		for began := time.Now(); time.Since(began) < rosterSettle+rosterSettle/2; {
			equal(t, what, b.price(t, 1), want)
		}
	}
	beforeCommit(t, a, func() {
		proxy.Cut()
		empty(t, server)
		reads("b before the commit", 10)
	})
	a.setPrice(t, 1, 77)
	reads("b after the commit", 77)
	must(t, proxy.Restore())
	eventually(t, "the writer has told Redis", time.Minute, func() bool { return a.cache.pending.len() == 0 })
	eventually(t, "b keeps it again", time.Minute, func() bool {
		asked := b.seen.queries.Load()
		equal(t, "b at last", b.price(t, 1), 77)
		return b.seen.queries.Load() == asked
	})
}

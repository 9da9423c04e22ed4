package cachehook

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// A writer goes on telling a server that all others have left, and that they have
// dealt with already.
func TestC06WritesToldToAServerThatOthersHaveLeft(t *testing.T) {
	t.Parallel()
	left, found := own(t), own(t)
	proxy := testbed.NewProxy(t, left.Addr())
	dsn := database(t)
	a := open(t, dsn, Config{Redis: clientOf(t, proxy.Addr())})
	b := open(t, dsn, Config{Redis: clientOf(t, found.Addr())})
	ready(t, a, b)
	named(t, a)
	named(t, b)
	equal(t, "b fills", b.price(t, 1), 10)
	a.setPrice(t, 1, 77)
	equal(t, "b has not been told", b.price(t, 1), 10)
	must(t, proxy.SetTarget(found.Addr()))
	moved := time.Now()
	eventually(t, "b hears of it", 30*time.Second, func() bool { return b.price(t, 1) == 77 })
	t.Logf("after %v", time.Since(moved))
	for range 5 {
		equal(t, "a", a.price(t, 1), 77)
		equal(t, "b", b.price(t, 1), 77)
	}
}

func TestRecentForgetsAndKnowsWhenItIsFull(t *testing.T) {
	t.Parallel()
	var r recent
	now := time.Now()
	past := func() (tags []string, known bool) { return r.tags(now, now.Add(-rememberFor)) }
	r.note(now, "a")
	now = now.Add(rememberFor)
	r.note(now, "b")
	now = now.Add(1)
	tags, known := past()
	equal(t, "known", known, true)
	equal(t, "remembered", fmt.Sprint(tags), "[b]")
	_, known = r.tags(now, now.Add(-rememberFor-1))
	equal(t, "known of too long ago", known, false)
	for i := range maxRecent + 1 {
		r.note(now.Add(rememberFor), fmt.Sprint(i))
	}
	now = now.Add(rememberFor)
	_, known = past()
	equal(t, "known when it is full", known, false)
	equal(t, "held", len(r.at) <= maxRecent, true)
	now = now.Add(rememberFor + 1)
	tags, known = past()
	equal(t, "known a minute later", known, true)
	equal(t, "left", len(tags), 0)
}

func TestRecentRemembersManyRowsAsTheirTable(t *testing.T) {
	t.Parallel()
	var r recent
	now := time.Now()
	r.note(now.Add(-rememberFor/2), "t:a", rowTag("t:a", "first"))
	for i := range 2 * maxRecent {
		now = now.Add(time.Microsecond)
		r.note(now, rowTag("t:a", fmt.Sprint(i)))
	}
	r.note(now, "mine")
	tags, known := r.tags(now, now.Add(-rememberFor))
	slices.Sort(tags)
	equal(t, "known", known, true)
	equal(t, "remembered", fmt.Sprintf("%q", tags), `["mine" "t:a" "t:a\x01"]`)
	tags, known = r.tags(now, now)
	equal(t, "known of the last moment", known, true)
	equal(t, "of the last moment", len(tags), 3)
}

// Sentinel promotes a replica that has not got the last writes: it comes with the
// stamps of before them, and the entries.
func TestC06SentinelFailoverThatLosesTheLastWrites(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	servers := testbed.NewRedisSentinel(t, testbed.RedisSentinelConfig{})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dsn := database(t)
	connect := func() *instance {
		c := redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: testbed.SentinelMaster, SentinelAddrs: servers.Addrs(),
			DialTimeout: time.Second, ReadTimeout: time.Second, WriteTimeout: time.Second,
		})
		t.Cleanup(func() { _ = c.Close() })
		return open(t, dsn, Config{Redis: c, Timeout: time.Second})
	}
	a, b := connect(), connect()
	ready(t, a, b)
	named(t, a)
	master, err := servers.Master(ctx)
	must(t, err)
	replica := servers.Nodes()[0]
	if replica == master {
		replica = servers.Nodes()[1]
	}
	equal(t, "a fills", a.price(t, 1), 10)
	eventually(t, "the replica has stamps and entry", time.Minute, func() bool {
		stamp, _ := replica.Do(ctx, "EXISTS", "infra:default:cache:t:"+a.table(t, "products"), "infra:default:cache:server")
		entries, _ := replica.Do(ctx, "KEYS", "infra:default:cache:e:*")
		list, _ := entries.([]any)
		return stamp == int64(2) && len(list) == 1
	})
	// From now on it gets nothing.
	_, err = master.Do(ctx, "ACL", "SETUSER", "default", "-psync", "-sync")
	must(t, err)
	_, err = master.Do(ctx, "CLIENT", "KILL", "TYPE", "replica")
	must(t, err)
	a.setPrice(t, 1, 77)
	eventually(t, "b", 10*time.Second, func() bool { return b.price(t, 1) == 77 })
	must(t, master.Kill())
	must(t, servers.WaitFailover(ctx, master))
	allowed := time.Now().Add(a.cache.cfg.Lease + time.Second)
	hits := a.cache.Stats().L1Hits + b.cache.Stats().L1Hits
	eventually(t, "memory serves again", time.Minute, func() bool {
		late := time.Now().After(allowed)
		for _, db := range []*instance{a, b} {
			if p := db.price(t, 1); p != 77 && late {
				t.Fatalf("price %d longer than a lease and a second after the failover", p)
			}
		}
		return late && a.cache.Stats().L1Hits+b.cache.Stats().L1Hits > hits+20
	})
	stamps, err := replica.Do(ctx, "EXISTS", "infra:default:cache:server")
	must(t, err)
	equal(t, "the new master is named", stamps, any(int64(1)))
}

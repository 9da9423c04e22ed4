package limithook

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// After a failover of the sentinels what the new master knows counts, and no more
// can pass than the limit and what it does not know: replication is not waited for.
func TestL04SentinelFailsOver(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	s := testbed.NewRedisSentinel(t, testbed.RedisSentinelConfig{})
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: testbed.SentinelMaster, SentinelAddrs: s.Addrs()})
	t.Cleanup(func() { _ = c.Close() })
	const limit = 40
	l := testLimiter(t, Config{PerUser: Per(limit, time.Hour), Global: Per(1000, time.Hour), Redis: c, Timeout: 2 * time.Second, OnRedisFailure: Closed, Lease: Lease{Max: 1}}, monotonic)
	kept := func(n *testbed.Redis) int {
		v, err := n.Do(t.Context(), "llen", l.terms.Load().held.user(subjectOf(as("a"))).keys[0])
		if err != nil {
			return -1
		}
		return int(v.(int64))
	}
	ask := func() Decision {
		t.Helper()
		d, err := l.Decide(as("a"), 1)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	admitted := 0
	for admitted < limit/2 {
		if d := ask(); d.Allowed {
			admitted++
		}
	}
	eventually(t, "the replica has it", func() bool { return kept(s.Nodes()[1]) >= admitted })
	if err := s.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	master, err := s.Master(t.Context())
	if err != nil || master == s.Nodes()[0] {
		t.Fatalf("the master is %v, %v", master, err)
	}
	known := kept(master)
	eventually(t, "a refusal by the limit", func() bool {
		d := ask()
		if d.Allowed {
			admitted++
		}
		return !d.Allowed && !d.Degraded
	})
	if lost := limit/2 - known; admitted > limit+max(0, lost) {
		t.Errorf("%d admitted, limit %d, and the new master did not know of %d", admitted, limit, lost)
	}
	t.Logf("the new master knew %d of %d", known, limit/2)
	if got := kept(master); got > limit {
		t.Errorf("%d admissions are kept, limit %d", got, limit)
	}
	if err := l.Reset(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if err := l.Allow(as("a")); err != nil {
		t.Errorf("after a reset: %v", err)
	}
}

// longestOf is the longest of so many decisions of so many goroutines, none refused.
func longestOf(t *testing.T, l *Limiter, goroutines, times int) (worst time.Duration) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range times {
				begun := time.Now()
				if err := l.Allow(as(fmt.Sprint(g))); err != nil {
					t.Error(err)
				}
				took := time.Since(begun)
				mu.Lock()
				worst = max(worst, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return worst
}

// With the default timeout, where calls are made on the caller's goroutine, a
// silent Redis holds nobody up for longer: not those who wait for a connection,
// nor those whose connection is new and has to be greeted first.
func TestL04FrozenRedisWithinTheDefaultTimeout(t *testing.T) {
	t.Parallel()
	for name, warm := range map[string]bool{"with connections": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, l := mortal(t, Config{PerUser: PerMinute(100_000), Lease: Lease{Max: 1}})
			if !l.shared.link.direct {
				t.Fatal("calls are made on another goroutine: nothing tested")
			}
			if warm {
				longestOf(t, l, 200, 2)
			}
			if err := server.Freeze(); err != nil {
				t.Fatal(err)
			}
			worst := longestOf(t, l, 200, 3)
			if !l.Stats().Down || l.Stats().Degraded == 0 {
				t.Errorf("%+v", l.Stats())
			}
			// The client alone would wait for 3 s to read and 5 s to dial; the
			// margin is for a busy machine.
			if worst > defaultTimeout+1500*time.Millisecond {
				t.Errorf("a decision took %v", worst)
			}
			t.Logf("longest decision %v", worst)
			if err := server.Thaw(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "Redis is in use again", func() bool { return !l.Stats().Down })
		})
	}
}

// The client of a Cluster does not end its calls at a deadline: they run on, elsewhere,
// and nobody waits for them.
func TestL04HungClusterWithinTheDefaultTimeout(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	cluster := testbed.NewRedisCluster(t, testbed.RedisClusterConfig{})
	each := func(f func(*testbed.Redis) error) {
		t.Helper()
		for _, n := range cluster.Nodes() {
			if err := f(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, warm := range map[string]bool{"with connections": true, "without": false} {
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
		t.Cleanup(func() { _ = c.Close() })
		l := testLimiter(t, Config{PerUser: PerMinute(100_000), Redis: c, Name: digest(name, 8), Lease: Lease{Max: 1}}, monotonic)
		if warm {
			if err := l.Allow(as("a")); err != nil {
				t.Fatal(err)
			}
		}
		each((*testbed.Redis).Freeze)
		worst := longestOf(t, l, 100, 3)
		each((*testbed.Redis).Thaw)
		if st := l.Stats(); worst > defaultTimeout+1500*time.Millisecond || st.Degraded == 0 {
			t.Errorf("%s: a decision took %v; %+v", name, worst, st)
		}
		t.Logf("%s: longest decision %v", name, worst)
		eventually(t, "the Cluster is in use again", func() bool { d, err := l.Decide(as("a"), 1); return err == nil && !d.Degraded })
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A sharded global limit lies in several slots, a user's keys in one.
func TestL04ShardedGlobalLimitOnACluster(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	cluster := testbed.NewRedisCluster(t, testbed.RedisClusterConfig{})
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	t.Cleanup(func() { _ = c.Close() })
	const limit, shards = 1600, 16
	cfg := Config{PerUser: PerMinute(1000), Global: Limit{Max: limit, Window: time.Minute, Shards: shards}, Redis: c, Timeout: 5 * time.Second, OnRedisFailure: Closed}
	instances := []*Limiter{testLimiter(t, cfg, monotonic), testLimiter(t, cfg, monotonic)}
	admitted := 0
	for i := range 800 {
		d, err := instances[i%2].Decide(as(fmt.Sprint(i%97)), 1)
		if err != nil || d.Degraded {
			t.Fatalf("%+v, %v", d, err)
		}
		if d.Allowed {
			admitted++
		}
	}
	if admitted < 700 {
		t.Errorf("%d of 800 admitted of a limit of %d", admitted, limit)
	}
	var mu sync.Mutex
	slots := map[int64]int{}
	masters := 0
	if err := c.ForEachMaster(t.Context(), func(ctx context.Context, m *redis.Client) error {
		keys, err := m.Keys(ctx, "*").Result()
		mu.Lock()
		defer mu.Unlock()
		if len(keys) > 0 {
			masters++
		}
		for _, k := range keys {
			slots[c.ClusterKeySlot(ctx, k).Val()]++
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(slots) != shards || masters < 2 {
		t.Errorf("the keys lie in %d slots of %d masters, want %d slots", len(slots), masters, shards)
	}
	for _, l := range instances {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	watch := testLimiter(t, cfg, monotonic)
	if d, err := watch.Info(t.Context(), ""); err != nil || d.Remaining != limit-admitted {
		t.Errorf("%d remaining of all shares, want %d: leases are not back, or more; %v", d.Remaining, limit-admitted, err)
	}
}

// The server's clock jumps back by an hour, and later forward again: nothing is
// forgotten, and nobody waits longer than the hour and the window.
func TestL04ClockOfRedisStepsBack(t *testing.T) {
	t.Parallel()
	server := newClockedRedis(t)
	now := int64(1e15)
	cfg := onRedis(t, Config{PerUser: Per(3, 100*time.Second), Global: Per(5, 100*time.Second), Lease: Lease{Max: 1}})
	// The clocks of the clients are an hour apart, and nobody's is stepped.
	own := int64(0)
	instances := []*Limiter{
		server.limiter(cfg, func() int64 { own += int64(2 * time.Second); return own }),
		server.limiter(cfg, func() int64 { own += int64(2 * time.Second); return own + int64(time.Hour) }),
	}
	decide := func(i int, user string) Decision {
		t.Helper()
		server.set(now / 1000)
		d, err := instances[i%2].Decide(as(user), 1)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for i := range 3 {
		if d := decide(i, "a"); !d.Allowed {
			t.Fatalf("%+v", d)
		}
	}
	now -= int64(time.Hour)
	for i := range 4 {
		d := decide(i, "a")
		if d.Allowed || d.RetryAfter > time.Hour+100*time.Second {
			t.Fatalf("after the step back: %+v", d)
		}
	}
	for i := range 3 { // another user, and the global limit holds
		if d := decide(i, "b"); d.Allowed != (i < 2) {
			t.Fatalf("request %d after the step back: %+v", i, d)
		}
	}
	now += int64(time.Hour) + int64(100*time.Second) - 1000
	if d := decide(0, "a"); d.Allowed {
		t.Fatalf("a microsecond early: %+v", d)
	}
	now += 1000
	if d := decide(1, "a"); !d.Allowed {
		t.Fatalf("after the window: %+v", d)
	}
}

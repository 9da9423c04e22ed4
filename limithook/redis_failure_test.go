package limithook

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// eventually waits until ok, for at most ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); pause(t.Context(), 5*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after ten seconds not: %s", what)
		}
	}
}

// mortal gives a Redis to hurt and a limiter on it.
func mortal(t *testing.T, cfg Config) (*testbed.Redis, *Limiter) {
	t.Helper()
	testbed.RequireRedis(t)
	server := testbed.NewRedis(t, testbed.RedisConfig{})
	cfg.Redis = client(t, server.Addr())
	return server, testLimiter(t, cfg, monotonic)
}

func TestFlushedScriptIsLoadedAgain(t *testing.T) {
	t.Parallel()
	server, l := mortal(t, Config{PerUser: PerMinute(3), Timeout: 5 * time.Second, OnRedisFailure: Closed, Lease: Lease{Max: 1}})
	for i := range 4 {
		if _, err := server.Do(t.Context(), "script", "flush"); err != nil {
			t.Fatal(err)
		}
		d, err := l.Decide(as("a"), 1)
		if err != nil || d.Allowed != (i < 3) || d.Degraded {
			t.Errorf("request %d: %+v, %v", i, d, err)
		}
	}
}

func TestRedisKilledMeetsTheModeAndRecovers(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Local, Open, Closed} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			server, l := mortal(t, Config{PerUser: PerMinute(10), Global: PerMinute(40), Instances: 2, OnRedisFailure: mode, Timeout: time.Second, Lease: Lease{Max: 1}})
			for i := range 11 {
				if d, err := l.Decide(as("a"), 1); err != nil || d.Allowed != (i < 10) {
					t.Fatalf("request %d: %+v, %v", i, d, err)
				}
			}
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			admitted := 0
			for range 30 {
				d, err := l.Decide(as("b"), 1)
				if want := map[Mode]int{Local: 5}[mode]; err != nil || !d.Degraded || d.Limit != want || d.Remaining > want {
					t.Fatalf("%+v, %v", d, err)
				}
				if !d.Allowed {
					err = l.Refusal(as("b"), d)
				}
				var e *Error
				switch {
				case err == nil:
					admitted++
				case mode == Closed && (!errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrLimited) || !errors.As(err, &e) || e.Scope != ScopeUnavailable || e.RetryAfter <= 0):
					t.Fatalf("under Closed: %v", err)
				case mode == Local && (errors.Is(err, ErrUnavailable) || !errors.As(err, &e) || e.Scope != ScopeUser):
					t.Fatalf("under Local: %v", err)
				}
			}
			if want := map[Mode]int{Local: 5, Open: 30, Closed: 0}[mode]; admitted != want {
				t.Errorf("%d of 30 admitted without Redis, want %d", admitted, want)
			}
			if d, err := l.Info(t.Context(), "b"); err != nil || !d.Degraded || d.Allowed != (mode == Open) {
				t.Errorf("info: %+v, %v", d, err)
			}
			if err := l.Reset(t.Context(), "b"); err == nil {
				t.Error("a reset without Redis gives no error")
			}
			if st := l.Stats(); !st.Down || st.Degraded < 30 || st.RedisErrors == 0 {
				t.Errorf("%+v", st)
			}
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "Redis is in use again", func() bool { return !l.Stats().Down })
			// It came back empty: the window begins anew.
			for i := range 11 {
				if d, err := l.Decide(as("b"), 1); err != nil || d.Allowed != (i < 10) || d.Degraded {
					t.Fatalf("after the restart, request %d: %+v, %v", i, d, err)
				}
			}
		})
	}
}

func TestFrozenRedisCostsNobodyMoreThanTheTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	server, l := mortal(t, Config{PerUser: PerMinute(1000), OnRedisFailure: Open, Timeout: timeout, Lease: Lease{Max: 1}})
	if err := l.Allow(as("a")); err != nil {
		t.Fatal(err)
	}
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var worst, told time.Duration
	var wg sync.WaitGroup
	for g := range 300 {
		wg.Go(func() {
			for range 3 {
				begun := time.Now()
				d, err := l.Decide(as(fmt.Sprint(g)), 1)
				took := time.Since(begun)
				if err != nil || !d.Allowed || !d.Degraded {
					t.Errorf("%+v, %v", d, err)
				}
				mu.Lock()
				worst, told = max(worst, took), max(told, d.Waited)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// The client's own read timeout is 3 s. The margin is for a busy machine.
	if worst > timeout+1500*time.Millisecond {
		t.Errorf("a decision took %v, the timeout is %v", worst, timeout)
	}
	if told < timeout-maxMargin || told > worst {
		t.Errorf("the longest wait is told as %v, the longest decision took %v", told, worst)
	}
	if st := l.Stats(); !st.Down {
		t.Errorf("%+v", st)
	}
	t.Logf("longest decision %v", worst)
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Redis is in use again", func() bool { return !l.Stats().Down })
	if d, err := l.Decide(as("a"), 1); err != nil || !d.Allowed || d.Degraded {
		t.Errorf("after the thaw: %+v, %v", d, err)
	}
}

func TestContextEndsWhileWaiting(t *testing.T) {
	t.Parallel()
	server, l := mortal(t, Config{PerUser: PerMinute(3), Timeout: 5 * time.Second, OnRedisFailure: Closed})
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the client went away")
	ctx, cancel := context.WithCancelCause(as("a"))
	done := make(chan error)
	go func() { done <- l.Allow(ctx) }()
	eventually(t, "Redis is asked", func() bool { return l.Stats().RedisCalls > 0 })
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) || errors.Is(err, ErrLimited) {
		t.Errorf("%v", err)
	}
	if st := l.Stats(); st.RedisErrors != 0 || st.Down {
		t.Errorf("a caller that left counts against Redis: %+v", st)
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
}

func TestSlowRedisWithinTheTimeoutIsWaitedFor(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	proxy := testbed.NewProxy(t, testbed.SharedRedis(t).Addr())
	cfg := onRedis(t, Config{PerUser: PerMinute(3), Lease: Lease{Max: 1}})
	cfg.Redis = client(t, proxy.Addr())
	l := testLimiter(t, cfg, monotonic)
	if err := l.Allow(as("a")); err != nil {
		t.Fatal(err)
	}
	proxy.SetDelay(20 * time.Millisecond)
	if d, err := l.Decide(as("a"), 1); err != nil || !d.Allowed || d.Degraded || d.Waited < 40*time.Millisecond {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestNamesAreApartAndKeysExpire(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server := testbed.NewRedis(t, testbed.RedisConfig{})
	cfg := Config{PerUser: Per(50, 200*time.Millisecond), Global: Per(1000, 300*time.Millisecond), OnRedisFailure: Closed, Timeout: 5 * time.Second, Lease: Lease{For: 50 * time.Millisecond}}
	cfg.Redis = client(t, server.Addr())
	var instances []*Limiter
	for _, name := range []string{"one", "two"} {
		cfg.Name = name
		l := testLimiter(t, cfg, monotonic)
		instances = append(instances, l)
		for range 200 {
			for u := range 5 {
				if _, err := l.Decide(as(fmt.Sprint(u)), 1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	cfg.Name = "three"
	l := testLimiter(t, cfg, monotonic)
	if d, err := l.Info(t.Context(), "0"); err != nil || d.Remaining != 50 {
		t.Errorf("another name is charged too: %+v, %v", d, err)
	}
	keys := func() []string {
		all, err := cfg.Redis.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, k := range keys() {
		if ttl := cfg.Redis.PTTL(t.Context(), k).Val(); ttl < -2 || ttl > 700*time.Millisecond || ttl == -1 {
			t.Errorf("%s lives for %v", k, ttl)
		}
	}
	eventually(t, "no key is left", func() bool { return len(keys()) == 0 })
	for _, l := range instances {
		if hits := l.Stats().LeaseHits; hits == 0 {
			t.Error("no leases: nothing tested")
		}
	}
}

func TestRememberedRefusalTellsTheLongerWait(t *testing.T) {
	t.Parallel()
	short, long := Per(1, 20*time.Second), PerMinute(1)
	for scope, cfg := range map[Scope]Config{
		ScopeGlobal: {PerUser: short, Global: long},
		ScopeUser:   {PerUser: long, Global: short},
	} {
		l := testLimiter(t, onRedis(t, cfg), monotonic)
		other := as("b")
		for i, ctx := range []context.Context{as("a"), as("a"), as("a"), other, other} {
			want := scope
			if i > 2 {
				want = ScopeGlobal // that is all that b has met
			}
			d, err := l.Decide(ctx, 1)
			if err != nil || d.Allowed != (i == 0) {
				t.Fatalf("%s, request %d: %+v, %v", scope, i, d, err)
			}
			if i > 0 && (d.Scope != want || (d.RetryAfter > 30*time.Second) != (d.Window == time.Minute)) {
				t.Errorf("%s, request %d: %+v, want the wait for the %s limit", scope, i, d, want)
			}
		}
		if st := l.Stats(); st.Remembered != 3 || st.RefusedGlobal+st.RefusedUser != 4 || st.Admitted != 1 {
			t.Errorf("%+v", st)
		}
	}
}

func TestGlobalRefusalGivesTheLeasedUnitBack(t *testing.T) {
	t.Parallel()
	cfg := onRedis(t, Config{PerUser: PerMinute(320), Global: PerMinute(200)})
	l, other := testLimiter(t, cfg, monotonic), testLimiter(t, cfg, monotonic)
	for range 100 { // until the user's lease outlasts the global one
		if err := l.Allow(as("a")); err != nil {
			t.Fatal(err)
		}
		if h := l.holds(); h[0] > 0 && h[1] == 0 {
			break
		}
		_ = l.AllowN(WithoutUser(t.Context()), 1)
	}
	before := l.holds()
	if before[0] == 0 || before[1] != 0 {
		t.Fatalf("held: %v", before)
	}
	for other.Allow(t.Context()) == nil {
	}
	d, err := l.Decide(as("a"), 1)
	if err != nil || d.Allowed || d.Scope != ScopeGlobal {
		t.Fatalf("%+v, %v", d, err)
	}
	if after := l.holds(); after != before {
		t.Errorf("%v was held before the refusal, %v after it", before, after)
	}
}

func TestClusterKeepsKeysTogetherAndFailsOver(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	cluster := testbed.NewRedisCluster(t, testbed.RedisClusterConfig{})
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	t.Cleanup(func() { _ = c.Close() })
	cfg := Config{PerUser: PerMinute(40), Global: PerMinute(1000), Redis: c, Timeout: 5 * time.Second, OnRedisFailure: Closed}
	l := testLimiter(t, cfg, monotonic)
	for i := range 41 {
		d, err := l.Decide(as("a"), 1)
		if err != nil || d.Allowed != (i < 40) {
			t.Fatalf("request %d: %+v, %v", i, d, err)
		}
	}
	slots := map[int64]bool{}
	if err := c.ForEachMaster(t.Context(), func(ctx context.Context, m *redis.Client) error {
		keys, err := m.Keys(ctx, "*").Result()
		for _, k := range keys {
			slots[m.ClusterKeySlot(ctx, k).Val()] = true
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(slots) != 1 {
		t.Errorf("keys lie in %d slots", len(slots))
	}
	for slot := range slots {
		if err := cluster.Failover(t.Context(), int(slot*3/16384)); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := l.Info(t.Context(), "a"); err != nil || d.Allowed || d.Degraded {
		t.Errorf("the new master has forgotten: %+v, %v", d, err)
	}
	for _, name := range []string{"b", "c"} {
		if err := l.Allow(as(name)); err != nil {
			t.Error(err)
		}
	}
	if err := l.Reset(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseRefusesNobodyWhoIsAsking(t *testing.T) {
	t.Parallel()
	cfg := onRedis(t, Config{PerUser: PerMinute(100), Global: PerMinute(1000)})
	l := testLimiter(t, cfg, monotonic)
	if err := l.Allow(as("a")); err != nil {
		t.Fatal(err)
	}
	// A request that passed the check for Close just before it.
	l.off.Store(true)
	l.shared.close(l.terms.Load())
	sub := newSubject("u:", "b")
	for range 3 {
		var o outcome
		if err := l.shared.decide(t.Context(), l.terms.Load(), &sub, nil, 1, &o); err != nil || !o.ok || o.degraded {
			t.Errorf("%+v, %v", o, err)
		}
	}
	other := testLimiter(t, cfg, monotonic)
	if d, err := other.Info(t.Context(), ""); err != nil || d.Remaining != 999 {
		t.Errorf("after Close something was charged or kept: %+v, %v", d, err)
	}
}

package limithook

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestL05LimitsChangeWithoutARestart(t *testing.T) {
	t.Parallel()
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLimiter(t, redis(Config{
				PerUser: PerMinute(3), Lease: Lease{Max: 1},
				Rules: []Rule{{Name: "tenant", Key: tenantOf, Rate: PerMinute(50)}},
			}), monotonic)
			admitted := func(want int, scope Scope) {
				t.Helper()
				for i := 0; ; i++ {
					d, err := l.Decide(tenant(as("a"), "acme"), 1)
					if err != nil {
						t.Fatal(err)
					}
					if !d.Allowed {
						if i != want || d.Scope != scope {
							t.Fatalf("%d more were admitted, then refused by %s: want %d, %s", i, d.Scope, want, scope)
						}
						return
					}
				}
			}
			admitted(3, ScopeUser)
			admitted(0, ScopeUser) // remembered
			set := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			set(l.SetLimits(PerMinute(5), Limit{}))
			admitted(2, ScopeUser)
			set(l.SetLimits(PerMinute(2), Limit{}))
			admitted(0, ScopeUser)
			set(l.SetLimits(Limit{}, PerMinute(4))) // all of the global log is new
			admitted(4, ScopeGlobal)
			set(l.SetLimits(Limit{}, Limit{}))
			set(l.SetRule("tenant", PerMinute(12)))
			admitted(3, "tenant")
			set(l.SetRule("tenant", PerMinute(13)))
			admitted(1, "tenant")

			for what, err := range map[string]error{
				"PerUser.Max is -1":    l.SetLimits(Per(-1, time.Second), Limit{}),
				"Rules[0].Rate.Window": l.SetRule("tenant", Per(1, 0)),
				`no rule "nobody"`:     l.SetRule("nobody", PerMinute(1)),
				"Global.Shards":        l.SetLimits(Limit{}, Limit{Max: 100, Window: time.Second, Shards: 4}),
			} {
				if err == nil || !strings.Contains(err.Error(), what) {
					t.Errorf("%s: %v", what, err)
				}
			}
			admitted(0, "tenant")
			_ = l.Close()
			if err := l.SetLimits(PerMinute(1), Limit{}); err != nil {
				t.Error(err)
			}
			for range 3 {
				if err := l.Allow(as("b")); err != nil {
					t.Errorf("a change after Close limits: %v", err)
				}
			}
		})
	}
}

// What was leased under the limits before goes back, and is spent no more.
func TestL05LeasesFollowAChange(t *testing.T) {
	t.Parallel()
	cfg := onRedis(t, Config{PerUser: PerMinute(640), Global: PerMinute(6400)})
	l, watch := testLimiter(t, cfg, monotonic), testLimiter(t, cfg, monotonic)
	const taken = 40
	for range taken {
		if err := l.Allow(as("a")); err != nil {
			t.Fatal(err)
		}
	}
	if h := l.holds(); h[0] == 0 || h[1] == 0 {
		t.Fatalf("%v leased: nothing tested", h)
	}
	if err := l.SetLimits(PerMinute(600), PerMinute(6400)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was leased is back", func() bool {
		u, err := watch.Info(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		g, err := watch.Info(t.Context(), "")
		return err == nil && u.Remaining == 640-taken && g.Remaining == 6400-taken
	})
}

// A lease that was asked for under the limits before, and comes when others are in
// force, goes back too.
func TestL05LeaseUnderWayFollowsAChange(t *testing.T) {
	t.Parallel()
	cfg := onRedis(t, Config{PerUser: PerMinute(640)})
	watch := testLimiter(t, cfg, monotonic)
	proxy := testbed.NewProxy(t, testbed.SharedRedis(t).Addr())
	cfg.Redis = client(t, proxy.Addr())
	l := testLimiter(t, cfg, monotonic)
	if err := l.Allow(as("b")); err != nil { // it connects
		t.Fatal(err)
	}
	calls := l.Stats().RedisCalls
	proxy.SetDelay(100 * time.Millisecond)
	done := make(chan error)
	go func() { done <- l.Allow(as("a")) }()
	eventually(t, "Redis is asked", func() bool { return l.Stats().RedisCalls > calls })
	if err := l.SetLimits(PerMinute(600), Limit{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if l.Stats().Leased < 2 {
		t.Fatal("nothing was leased: nothing tested")
	}
	proxy.SetDelay(0)
	eventually(t, "it is back", func() bool { d, err := watch.Info(t.Context(), "a"); return err == nil && d.Remaining == 639 })
}

// While limits are changed under many goroutines, no window holds more than the
// highest of them.
func TestL05ChangesUnderLoadAdmitNoMoreThanTheHighest(t *testing.T) {
	t.Parallel()
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const window, highest = 400 * time.Millisecond, 200
			l := testLimiter(t, redis(Config{PerUser: Per(100, window)}), monotonic)
			var mu sync.Mutex
			var spans []span
			var wg sync.WaitGroup
			end := monotonic() + int64(3*window)
			for range 20 {
				wg.Go(func() {
					for monotonic() < end {
						before := monotonic()
						d, err := l.Decide(as("a"), 1)
						if err != nil {
							t.Error(err)
							return
						}
						after := monotonic()
						if !d.Allowed {
							pause(t.Context(), time.Millisecond)
							continue
						}
						mu.Lock()
						spans = append(spans, span{before, after})
						mu.Unlock()
					}
				})
			}
			r := rand.New(rand.NewPCG(1, 2))
			for monotonic() < end {
				if err := l.SetLimits(Per(highest/2+r.IntN(highest/2+1), window), Limit{}); err != nil {
					t.Error(err)
				}
				pause(t.Context(), 10*time.Millisecond)
			}
			wg.Wait()
			if certainlyAbove(spans, highest, int64(window)) {
				t.Errorf("more than %d in a window", highest)
			}
			if len(spans) < highest/2 {
				t.Errorf("%d admitted: nothing tested", len(spans))
			}
		})
	}
}

// A refusal that another process remembers ends with the next answer that Redis
// gives it, of whatever account.
func TestL05ResetElsewhereEndsARememberedRefusal(t *testing.T) {
	t.Parallel()
	cfg := onRedis(t, Config{PerUser: PerMinute(1), Lease: Lease{Max: 1}})
	now := int64(1e15) // the second for which it is remembered never passes
	there, here := testLimiter(t, cfg, func() int64 { return now }), testLimiter(t, cfg, monotonic)
	if err := there.Allow(as("a")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := there.Allow(as("a")); err == nil {
			t.Fatal("not refused")
		}
	}
	if err := here.Reset(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := there.Allow(as("a")); err == nil {
		t.Fatal("nothing was remembered: nothing tested")
	}
	if err := there.Allow(as("b")); err != nil {
		t.Fatal(err)
	}
	if err := there.Allow(as("a")); err != nil {
		t.Errorf("after the next answer: %v", err)
	}
}

func TestShadowCountsAndRefusesNobody(t *testing.T) {
	t.Parallel()
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLimiter(t, redis(Config{PerUser: PerMinute(2), Global: PerMinute(3), Shadow: true, Lease: Lease{Max: 1}}), monotonic)
			for i, user := range []string{"a", "a", "a", "b", "b", "a"} {
				d, err := l.Decide(as(user), 1)
				if shadowed := i == 2 || i > 3; err != nil || !d.Allowed || d.Shadowed != shadowed || shadowed != (d.RetryAfter > 0) {
					t.Errorf("request %d: %+v, %v", i, d, err)
				}
				h := http.Header{}
				if SetHeaders(h, d); len(h) > 0 {
					t.Errorf("request %d: clients are told %v", i, h)
				}
			}
			st := l.Stats()
			if st.Admitted != 6 || st.RefusedUser+st.RefusedGlobal != 0 || st.Shadowed["user"] == 0 || st.Shadowed["global"] == 0 || st.Shadowed["user"]+st.Shadowed["global"] != 3 {
				t.Errorf("%+v", st)
			}
			if d, err := l.Info(t.Context(), "a"); err != nil || d.Allowed || d.Remaining != 0 {
				t.Errorf("what would be refused is charged, or the rest is not: %+v, %v", d, err)
			}
		})
	}
}

func TestL04SharesOfAGlobalLimit(t *testing.T) {
	t.Parallel()
	const limit, shards = 103, 4
	cfg := onRedis(t, Config{PerUser: PerMinute(1000), Global: Limit{Max: limit, Window: time.Minute, Shards: shards}, Lease: Lease{Max: 1}})
	instances := []*Limiter{testLimiter(t, cfg, monotonic), testLimiter(t, cfg, monotonic)}
	admitted := 0
	for i := range 300 {
		d, err := instances[i%2].Decide(as(fmt.Sprint(i%40)), 1)
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed {
			admitted++
		} else if d.Scope != ScopeGlobal || d.Limit != limit {
			t.Fatalf("%+v", d)
		}
	}
	if admitted != limit/shards*shards {
		t.Errorf("%d admitted of %d in %d shares", admitted, limit, shards)
	}
	for range 20 { // nobody's may go to any share: all are used up
		if err := instances[0].Allow(t.Context()); err == nil {
			t.Error("admitted above the limit")
		}
	}
	if d, err := instances[1].Info(t.Context(), ""); err != nil || d.Remaining != 0 || d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
	// The same user meets the same share in every process.
	one := "only"
	cfg = onRedis(t, Config{Global: Limit{Max: 8, Window: time.Minute, Shards: 4}, Lease: Lease{Max: 1}})
	for i := range 4 {
		if err := testLimiter(t, cfg, monotonic).Allow(as(one)); (err == nil) != (i < 2) {
			t.Errorf("request %d of one user: %v", i, err)
		}
	}
	l := testLimiter(t, cfg, monotonic)
	if d, err := l.Info(t.Context(), ""); err != nil || d.Remaining != 6 || !d.Allowed {
		t.Errorf("all shares together: %+v, %v", d, err)
	}
	keys, err := cfg.Redis.Keys(t.Context(), "*limits:"+cfg.Name+"*").Result()
	if err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
}

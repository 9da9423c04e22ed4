package limithook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// span is a decision between two instants.
type span struct{ before, after int64 }

// certainlyAbove reports a set of more than limit admissions that lie within
// one window even when each came as early or as late as it can have.
func certainlyAbove(spans []span, limit int, width int64) (found bool) {
	slices.SortFunc(spans, func(a, b span) int { return int(a.after - b.after) })
	for i := range len(spans) - limit {
		set := spans[i : i+limit+1]
		first := slices.MinFunc(set, func(a, b span) int { return int(a.before - b.before) })
		if set[limit].after-first.before < width {
			return true
		}
	}
	return false
}

func TestManyGoroutinesOnSeveralInstances(t *testing.T) {
	t.Parallel()
	const window = 300 * time.Millisecond
	for _, c := range []struct {
		name                 string
		user, global, leases int
	}{{"exact", 20, 50, 1}, {"leased", 200, 500, 16}, {"one", 1, 3, 16}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := onRedis(t, Config{PerUser: Per(c.user, window), Global: Per(c.global, window), Lease: Lease{Max: c.leases}})
			var mu sync.Mutex
			users, all := map[string][]span{}, []span{}
			var wg sync.WaitGroup
			end := monotonic() + int64(4*window)
			for range 3 {
				cfg.Redis = client(t, "")
				l := testLimiter(t, cfg, monotonic)
				for g := range 100 {
					wg.Go(func() {
						who := fmt.Sprint(g % 4)
						for monotonic() < end {
							before := monotonic()
							d, err := l.Decide(as(who), 1)
							if err != nil {
								t.Error(err)
								return
							}
							s := span{before, monotonic()}
							if !d.Allowed {
								pause(t.Context(), min(d.RetryAfter, 5*time.Millisecond))
								continue
							}
							mu.Lock()
							users[who] = append(users[who], s)
							all = append(all, s)
							mu.Unlock()
						}
					})
				}
			}
			wg.Wait()
			for who, spans := range users {
				if certainlyAbove(spans, c.user, int64(window)) {
					t.Errorf("user %s: more than %d in a window", who, c.user)
				}
			}
			if certainlyAbove(all, c.global, int64(window)) {
				t.Errorf("more than %d in a window", c.global)
			}
			// Four windows of demand on a machine that may be busy.
			if c.leases == 1 && len(all) < 2*c.global {
				t.Errorf("%d admitted in four windows of %d", len(all), c.global)
			}
			t.Logf("%d admitted", len(all))
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func TestBurstAdmitsExactlyTheLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 7, 300} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			cfg := onRedis(t, Config{PerUser: Per(limit, time.Hour), Lease: Lease{Max: 1}})
			var instances []*Limiter
			for range 3 {
				instances = append(instances, testLimiter(t, cfg, monotonic))
			}
			var wg sync.WaitGroup
			for g := range 60 {
				wg.Go(func() {
					for range 10 {
						if _, err := instances[g%3].Decide(as("a"), 1); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			total := uint64(0)
			for _, l := range instances {
				total += l.Stats().Admitted
			}
			if want := uint64(min(limit, 600)); total != want {
				t.Errorf("%d admitted, limit %d", total, want)
			}
		})
	}
}

func TestVeryLargeLimitAndCost(t *testing.T) {
	t.Parallel()
	l := testLimiter(t, onRedis(t, Config{PerUser: Per(1<<31, time.Hour), Global: Per(25_000, time.Hour), Lease: Lease{Max: 1}}), monotonic)
	for i, want := range []bool{true, true, false, false} {
		d, err := l.Decide(as("a"), 10_000)
		if err != nil || d.Allowed != want {
			t.Fatalf("request %d: %+v, %v", i, d, err)
		}
	}
	if d, err := l.Decide(as("a"), 5000); err != nil || !d.Allowed || d.Limit != 1<<31 || d.Remaining != 1<<31-25_000 {
		t.Errorf("what is left: %+v, %v", d, err)
	}
	if err := l.AllowN(as("a"), 10_001); !errors.Is(err, ErrCost) {
		t.Error(err)
	}
}

func TestRedisWithoutRoomForgetsNoCharge(t *testing.T) {
	t.Parallel()
	const room, users, limit = 4, 30, 3
	l := testLimiter(t, onRedis(t, Config{PerUser: Per(limit, time.Hour), MaxKeys: room}), monotonic)
	admitted := make([]int, users)
	for range limit + 2 {
		for u := range users {
			d, err := l.Decide(as(fmt.Sprint(u)), 1)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				admitted[u]++
			}
			if keys := l.Stats().Keys; keys > room {
				t.Fatalf("%d identities held, room for %d", keys, room)
			}
		}
	}
	for u, n := range admitted {
		if n != limit {
			t.Errorf("user %d was admitted %d times, limit %d", u, n, limit)
		}
	}
}

func TestRetryAfterIsLongEnough(t *testing.T) {
	t.Parallel()
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLimiter(t, redis(Config{PerUser: Per(2, 100*time.Millisecond), Global: Per(3, 150*time.Millisecond)}), monotonic)
			for i := 0; i < 10; {
				d, err := l.Decide(as("a"), 1)
				if err != nil {
					t.Fatal(err)
				}
				if d.Allowed {
					continue
				}
				if i++; i%2 == 0 { // as it is remembered
					if d, err = l.Decide(as("a"), 1); err != nil {
						t.Fatal(err)
					}
				}
				pause(t.Context(), d.RetryAfter)
				if again, err := l.Decide(as("a"), 1); err != nil || !again.Allowed {
					t.Errorf("refused after the %v that were told: %+v, %v", d.RetryAfter, again, err)
				}
			}
		})
	}
}

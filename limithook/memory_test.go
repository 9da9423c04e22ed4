package limithook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMemoryForgetsIdleUsersAndOnlyThose(t *testing.T) {
	t.Parallel()
	clock := &virtual{}
	l := testLimiter(t, Config{PerUser: Per(1, time.Second), MaxKeys: 1 << 20}, clock.read)
	for i := range 50_000 {
		clock.now += int64(time.Millisecond)
		if err := l.Allow(as(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if i > 500 {
			if err := l.Allow(as(fmt.Sprint(i - 500))); err == nil {
				t.Fatalf("user %d was forgotten within the window", i-500)
			}
		}
	}
	if keys := l.Stats().Keys; keys < 1000 || keys > 2000 {
		t.Errorf("%d users held, 1000 were seen in the last window", keys)
	}
}

func TestMemoryWithoutRoomNeverAdmitsTooMuch(t *testing.T) {
	t.Parallel()
	const limit, room = 3, 8
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		clock := &virtual{}
		l := testLimiter(t, Config{PerUser: Per(limit, time.Second), MaxKeys: room}, clock.read)
		admitted := map[int][]int64{}
		for range 5000 {
			clock.now += r.Int64N(int64(20 * time.Millisecond))
			who := r.IntN(40)
			if r.IntN(3) > 0 {
				who %= 4
			}
			if d, _ := l.Decide(as(fmt.Sprint(who)), 1); d.Allowed {
				admitted[who] = append(admitted[who], clock.now)
			}
			if keys := l.Stats().Keys; keys > room {
				t.Fatalf("%d keys held, room for %d", keys, room)
			}
		}
		if l.Stats().Overflow == 0 {
			t.Fatal("there was always room: nothing tested")
		}
		for who, at := range admitted {
			if got := worst(at, int64(time.Second)); got > limit {
				t.Errorf("seed %d: user %d was admitted %d times in a window, limit %d", seed, who, got, limit)
			}
		}
	}
}

// The mutexes are one where there is a global limit from the start, and several where
// there is none: both with everything at once, and limits that come and go.
func TestMemoryWithEverythingAtOnce(t *testing.T) {
	t.Parallel()
	rules := []Rule{{Name: "tenant", Rate: PerMinute(1 << 20), Key: tenantOf}}
	for name, cfg := range map[string]Config{
		"one mutex":           {Global: PerMinute(1 << 20)},
		"one mutex and rules": {Global: PerMinute(1 << 20), Rules: rules},
		"several":             {},
		"several and rules":   {Rules: rules},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.PerUser, cfg.MaxKeys = PerMinute(1<<20), 6
			l := testLimiter(t, cfg, monotonic)
			const goroutines, requests = 8, 400
			var admitted atomic.Uint64
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					kept := as(fmt.Sprint(g % 3))
					for i := range requests {
						ctx := kept
						if i%3 == 0 {
							ctx = tenant(as(fmt.Sprint(i%9)), fmt.Sprint(i%4))
						}
						if d, err := l.Decide(ctx, 1); err == nil && d.Allowed {
							admitted.Add(1)
						}
						var err error
						switch i % 40 {
						case 10:
							if cfg.Rules != nil {
								_, err = l.RuleInfo(t.Context(), "tenant", "1")
							}
						case 15:
							_, err = l.Info(ctx, "1")
						case 20:
							err = l.Reset(t.Context(), "1")
						case 25:
							if cfg.Rules != nil {
								err = l.ResetRule(t.Context(), "tenant", "1")
							}
						case 30:
							err = l.SetLimits(PerMinute(1<<20), Limit{})
						case 35:
							err = l.SetLimits(PerMinute(1<<20), PerMinute(1<<20))
						case 38:
							_ = l.Stats()
						}
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if st := l.Stats(); admitted.Load() != goroutines*requests || st.Admitted != admitted.Load() {
				t.Errorf("%d admitted of %d; %+v", admitted.Load(), goroutines*requests, st)
			}
		})
	}
}

// A context may be in use for longer than its user's log is kept.
func TestForgottenLogIsNotChargedThroughAnOldContext(t *testing.T) {
	t.Parallel()
	var now int64
	l := testLimiter(t, Config{PerUser: PerMinute(1), MaxKeys: 1}, func() int64 { return now })
	old := as("a")
	for i, ctx := range []context.Context{old, as("b"), old, as("a")} {
		if i < 3 {
			now += int64(2 * time.Minute) // the one before is forgotten for this one
		}
		if err := l.Allow(ctx); (err == nil) != (i < 3) {
			t.Errorf("request %d: %v", i, err)
		}
	}
}

func TestLeaseThatMadeRoomIsNotFoundThroughAnOldContext(t *testing.T) {
	t.Parallel()
	cfg := Config{PerUser: PerMinute(1), MaxKeys: 1}.withDefaults()
	of := func() *held { return newHeld(cfg, plainTerms(cfg, 1)) }
	h, a, b := of(), newSubject("u:", "a"), newSubject("u:", "b")
	first := h.user(&a)
	if h.user(&a) != first {
		t.Error("what is held is not found again")
	}
	h.user(&b)
	again := h.user(&a)
	if again == first || h.tables[0].shards[0].byID[a.key] != again {
		t.Error("what was dropped is in use")
	}
	if of().user(&a) == again {
		t.Error("another limiter's lease is in use")
	}
}

package limithook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// oracle is the contract written down naively: it keeps every admission for
// ever and counts again at each request.
type oracle struct {
	rate rate
	at   []int64
}

func (o *oracle) count(now int64) (n int) {
	for _, a := range o.at {
		if a <= now && now-a < o.rate.width {
			n++
		}
	}
	return n
}

// wait tries every instant at which something changes.
func (o *oracle) wait(now int64, cost int) int64 {
	if o.rate.max == 0 || o.count(now)+cost <= o.rate.max {
		return 0
	}
	best := int64(-1)
	for _, a := range o.at {
		t := a + o.rate.width
		if t > now && o.count(t)+cost <= o.rate.max && (best < 0 || t < best) {
			best = t
		}
	}
	return best - now
}

// worst returns the largest number of instants in any trailing window of this
// width. The fullest windows end at an instant.
func worst(at []int64, width int64) (most int) {
	slices.Sort(at)
	first := 0
	for i, t := range at {
		for t-at[first] >= width {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// virtual is a clock that a test sets.
type virtual struct{ now int64 }

func (v *virtual) read() int64 { return v.now }

func testLimiter(tb testing.TB, cfg Config, clock func() int64) *Limiter {
	tb.Helper()
	l, err := newLimiter(cfg, clock)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l
}

// arrivals are patterns: each returns how long after the last request the next
// one comes. W is 1,000 units.
var arrivals = map[string]func(r *rand.Rand, i int) int64{
	"together":        func(*rand.Rand, int) int64 { return 0 },
	"poisson":         func(r *rand.Rand, _ int) int64 { return int64(r.ExpFloat64() * 30) },
	"dense":           func(r *rand.Rand, _ int) int64 { return r.Int64N(3) },
	"drip":            func(*rand.Rand, int) int64 { return 99 },
	"sparse":          func(r *rand.Rand, _ int) int64 { return r.Int64N(2500) },
	"boundary bursts": func(_ *rand.Rand, i int) int64 { return []int64{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 999, 0, 1, 0}[i%14] },
	"window exactly":  func(_ *rand.Rand, i int) int64 { return []int64{0, 0, 1000}[i%3] },
	"clock steps back": func(r *rand.Rand, i int) int64 {
		if i%50 == 49 {
			return -r.Int64N(700)
		}
		return r.Int64N(40)
	},
}

func TestMemoryAgreesWithOracle(t *testing.T) {
	t.Parallel()
	const unit = int64(time.Microsecond)
	limits := []struct{ user, global int }{{10, 0}, {0, 10}, {1, 1}, {10, 15}, {7, 3}, {100, 150}, {10, 1000}}
	for name, next := range arrivals {
		for _, lim := range limits {
			t.Run(fmt.Sprintf("%s/user %d global %d", name, lim.user, lim.global), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(7, uint64(lim.user*1000+lim.global)))
				var cfg Config
				if lim.user > 0 {
					cfg.PerUser = Limit{Max: lim.user, Window: 1000 * time.Microsecond}
				}
				if lim.global > 0 {
					cfg.Global = Limit{Max: lim.global, Window: 1500 * time.Microsecond}
				}
				clock := &virtual{now: 5}
				l := testLimiter(t, cfg, clock.read)
				users := make([]oracle, 4)
				contexts := make([]context.Context, len(users))
				for i := range users {
					users[i].rate = rate{lim.user, int64(cfg.PerUser.Window)}
					contexts[i] = as(fmt.Sprint(i)) //nolint:fatcontext // one for each
				}
				global := oracle{rate: rate{lim.global, int64(cfg.Global.Window)}}
				limit := max(lim.user, lim.global)
				if lim.user > 0 && lim.global > 0 {
					limit = min(lim.user, lim.global)
				}
				latest := int64(0) // the clock as the contract has it: never back
				for i := range 1500 {
					clock.now += next(r, i) * unit
					latest = max(latest, clock.now)
					cost := 1
					if r.IntN(4) == 0 {
						cost = 1 + r.IntN(min(limit, 4))
					}
					who := r.IntN(len(users))
					u := &users[who]
					// A log knows of the clock only what it has recorded.
					now := clock.now
					for _, o := range []*oracle{u, &global} {
						if o.rate.max > 0 && len(o.at) > 0 {
							now = max(now, o.at[len(o.at)-1])
						}
					}
					uw, gw := u.wait(now, cost), global.wait(now, cost)
					ctx := contexts[who] // in which the user's log is found again
					if i%5 == 0 {
						ctx = as(fmt.Sprint(who))
					}
					d, err := l.Decide(ctx, cost)
					if err != nil {
						t.Fatal(err)
					}
					if want := uw == 0 && gw == 0; d.Allowed != want {
						t.Fatalf("request %d at %d: admitted %v, the oracle says %v", i, clock.now, d.Allowed, want)
					}
					if d.RetryAfter != time.Duration(max(uw, gw)) {
						t.Fatalf("request %d at %d: retry after %v, the oracle says %v", i, clock.now, d.RetryAfter, time.Duration(max(uw, gw)))
					}
					if !d.Allowed {
						if want := map[bool]Scope{true: ScopeUser, false: ScopeGlobal}[uw >= gw]; d.Scope != want {
							t.Fatalf("request %d: refused by %s, want %s", i, d.Scope, want)
						}
						continue
					}
					for range cost {
						u.at = append(u.at, now)
						global.at = append(global.at, now)
					}
					if lim.user > 0 && d.Remaining != lim.user-u.count(now) {
						t.Fatalf("request %d: remaining %d, want %d", i, d.Remaining, lim.user-u.count(now))
					}
				}
				for _, o := range append(users, global) {
					if o.rate.max == 0 {
						continue
					}
					if got := worst(o.at, o.rate.width); got > o.rate.max {
						t.Errorf("%d admitted in one window, limit %d", got, o.rate.max)
					}
				}
			})
		}
	}
}

func TestAdmittedAtTheExactRetryInstant(t *testing.T) {
	t.Parallel()
	clock := &virtual{}
	l := testLimiter(t, Config{PerUser: Per(3, time.Second), Global: Per(4, 2*time.Second)}, clock.read)
	ctx := WithUser(context.Background(), "alice")
	for i := range 3 {
		clock.now = int64(i) * 100
		if err := l.Allow(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		d, _ := l.Decide(ctx, 1)
		if d.Allowed {
			t.Fatal("admitted before the retry instant")
		}
		retry := clock.now + int64(d.RetryAfter)
		// The instant is rounded up by less than a microsecond.
		clock.now = retry - int64(time.Microsecond)
		if d, _ := l.Decide(ctx, 1); d.Allowed {
			t.Fatal("admitted a microsecond early")
		}
		clock.now = retry
		if d, _ := l.Decide(ctx, 1); !d.Allowed {
			t.Fatalf("refused at the retry instant, now told to wait %v", d.RetryAfter)
		}
	}
}

func FuzzLogAgreesWithOracle(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 250, 9, 0, 0}, uint8(3))
	f.Fuzz(func(t *testing.T, steps []byte, most uint8) {
		if most == 0 || len(steps) > 300 {
			return
		}
		r := rate{int(most), 100}
		l, o, now := log{}, oracle{rate: r}, int64(0)
		for _, s := range steps {
			now += int64(s >> 2)
			cost := min(int(s&3)+1, r.max)
			want := o.wait(now, cost)
			accounts := []account{{log: &l, rate: r}}
			ok := admit(now, cost, true, accounts)
			got := accounts[0]
			if ok != (want == 0) {
				t.Fatalf("at %d cost %d: admitted %v, wait %d, want %d", now, cost, ok, got.wait, want)
			}
			if !ok && got.wait != want {
				t.Fatalf("at %d cost %d: wait %d, want %d", now, cost, got.wait, want)
			}
			if ok {
				for range cost {
					o.at = append(o.at, now)
				}
			}
		}
	})
}

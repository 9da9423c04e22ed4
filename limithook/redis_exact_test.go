package limithook

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// clockedRedis is a Redis whose limits go by a clock that the test sets.
type clockedRedis struct {
	t      *testing.T
	client *redis.Client
	key    string
	script *redis.Script
}

func newClockedRedis(t *testing.T) *clockedRedis {
	t.Helper()
	c := &clockedRedis{t: t, client: client(t, ""), key: "clock:" + digest(t.Name(), 8)}
	// Like TIME: the seconds, and the microseconds without leading zeros.
	clock := fmt.Sprintf("(function(v) return {string.sub(v, 1, -7), string.format('%%d', string.sub(v, -6))} end)(call('GET', '%s'))", c.key)
	source := strings.Replace(decideSource, "call('TIME')", clock, 1)
	if source == decideSource {
		t.Fatal("the script reads the time in another way")
	}
	c.script = redis.NewScript(source)
	return c
}

// set gives the instant in microseconds.
func (c *clockedRedis) set(now int64) {
	c.t.Helper()
	if err := c.client.Set(c.t.Context(), c.key, now, time.Hour).Err(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clockedRedis) limiter(cfg Config, clock func() int64) *Limiter {
	c.t.Helper()
	l := testLimiter(c.t, cfg, clock)
	l.shared.logs.script = c.script
	return l
}

// The unit of the arrivals is a second here, so that no key of the script
// expires by the real clock while the test runs.
const slow = int64(time.Second)

func TestRedisAgreesWithOracle(t *testing.T) {
	t.Parallel()
	limits := []struct{ user, global int }{{10, 0}, {0, 10}, {1, 1}, {10, 15}, {7, 3}}
	for name, next := range arrivals {
		for _, lim := range limits {
			t.Run(fmt.Sprintf("%s/user %d global %d", name, lim.user, lim.global), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(11, uint64(lim.user*1000+lim.global)))
				cfg := onRedis(t, Config{Lease: Lease{Max: 1}})
				if lim.user > 0 {
					cfg.PerUser = Per(lim.user, 1000*time.Second)
				}
				if lim.global > 0 {
					cfg.Global = Per(lim.global, 1500*time.Second)
				}
				server := newClockedRedis(t)
				// Two instances whose own clocks are an hour apart.
				now := int64(1e15)
				instances := []*Limiter{
					server.limiter(cfg, func() int64 { return now }),
					server.limiter(cfg, func() int64 { return now + int64(time.Hour) }),
				}
				users := make([]oracle, 3)
				for i := range users {
					users[i].rate = rate{lim.user, int64(cfg.PerUser.Window)}
				}
				global := oracle{rate: rate{lim.global, int64(cfg.Global.Window)}}
				most := min(4, max(lim.user, lim.global))
				if lim.user > 0 && lim.global > 0 {
					most = min(4, lim.user, lim.global)
				}
				for i := range 250 {
					step := next(r, i) * slow
					if step < 0 {
						// The server's clock alone steps back, and what a
						// client remembers is from before: leave it out.
						for _, l := range instances {
							l.forget()
						}
					}
					now += step
					server.set(now / 1000)
					who, cost := r.IntN(len(users)), 1
					if r.IntN(4) == 0 {
						cost = 1 + r.IntN(most)
					}
					u, at := &users[who], now
					for _, o := range []*oracle{u, &global} {
						if o.rate.max > 0 && len(o.at) > 0 {
							at = max(at, o.at[len(o.at)-1])
						}
					}
					// The wait is told from the clock as it is, standing or not.
					wait := max(u.wait(at, cost), global.wait(at, cost))
					if wait > 0 {
						wait += at - now
					}
					l := instances[r.IntN(2)]
					remembered := l.Stats().Remembered
					d, err := l.Decide(as(fmt.Sprint(who)), cost)
					if err != nil {
						t.Fatal(err)
					}
					// A remembered refusal does not know who came since to the
					// other instance, and may promise too much.
					exact := int64(d.RetryAfter) == wait || l.Stats().Remembered > remembered && int64(d.RetryAfter) < wait
					if d.Allowed != (wait == 0) || !exact {
						t.Fatalf("request %d at %d, cost %d: %+v, the oracle says wait %v", i, now, cost, d, time.Duration(wait))
					}
					if !d.Allowed {
						continue
					}
					for range cost {
						u.at = append(u.at, at)
						global.at = append(global.at, at)
					}
					if lim.user > 0 && d.Remaining != lim.user-u.count(at) {
						t.Fatalf("request %d: remaining %d, want %d", i, d.Remaining, lim.user-u.count(at))
					}
				}
				for _, o := range append(users, global) {
					if o.rate.max > 0 && worst(o.at, o.rate.width) > o.rate.max {
						t.Errorf("%d admitted in one window, limit %d", worst(o.at, o.rate.width), o.rate.max)
					}
				}
			})
		}
	}
}

// forget drops what is remembered of refusals.
func (l *Limiter) forget() {
	l.terms.Load().held.each(func(h *holding) { h.refusal.Store(nil) })
}

func TestLeasesNeverAdmitAboveTheLimit(t *testing.T) {
	t.Parallel()
	for _, lim := range []struct{ user, global, lease int }{{40, 0, 16}, {0, 64, 16}, {100, 150, 16}, {1000, 1500, 1024}, {64, 40, 8}, {48, 96, 4}} {
		t.Run(fmt.Sprintf("user %d global %d lease %d", lim.user, lim.global, lim.lease), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(3, uint64(lim.user)))
			cfg := onRedis(t, Config{Lease: Lease{Max: lim.lease, For: 200 * time.Second}})
			if lim.user > 0 {
				cfg.PerUser = Per(lim.user, 1000*time.Second)
			}
			if lim.global > 0 {
				cfg.Global = Per(lim.global, 1500*time.Second)
			}
			server := newClockedRedis(t)
			now := int64(1e15)
			var instances []*Limiter
			for i := range 3 {
				instances = append(instances, server.limiter(cfg, func() int64 { return now + int64(i)*int64(time.Hour) }))
			}
			admitted, all := map[int][]int64{}, []int64{}
			limit := max(lim.user, lim.global)
			mean := float64(1000) / float64(limit) // about the limit's own pace
			for range 3000 {
				switch r.IntN(200) {
				case 0:
					now += r.Int64N(1500) * slow
				case 1, 2, 3, 4:
					now += r.Int64N(100) * slow
				default:
					now += int64(r.ExpFloat64() * mean / 3 * float64(slow))
				}
				server.set(now / 1000)
				who, cost := r.IntN(2), 1
				if r.IntN(8) == 0 {
					cost = 1 + r.IntN(3)
				}
				d, err := instances[r.IntN(len(instances))].Decide(as(fmt.Sprint(who)), cost)
				if err != nil {
					t.Fatal(err)
				}
				if d.Allowed {
					for range cost {
						admitted[who] = append(admitted[who], now)
						all = append(all, now)
					}
				}
			}
			hits := uint64(0)
			for _, l := range instances {
				hits += l.Stats().LeaseHits
			}
			if hits < uint64(len(all))/50 {
				t.Errorf("%d of %d came from a lease: nothing tested", hits, len(all))
			}
			t.Logf("%d admitted, %d of them leased", len(all), hits)
			for who, at := range admitted {
				if lim.user > 0 && worst(at, int64(cfg.PerUser.Window)) > lim.user {
					t.Errorf("user %d: %d in one window, limit %d", who, worst(at, int64(cfg.PerUser.Window)), lim.user)
				}
			}
			if lim.global > 0 && worst(all, int64(cfg.Global.Window)) > lim.global {
				t.Errorf("%d in one window, limit %d", worst(all, int64(cfg.Global.Window)), lim.global)
			}
		})
	}
}

func TestLeasesAreReturnedOnCloseAndLostInACrashForOneWindow(t *testing.T) {
	t.Parallel()
	server := newClockedRedis(t)
	now := int64(1e15)
	clock := func() int64 { return now }
	const limit, window, term = 320, 1000 * time.Second, 100 * time.Second
	cfg := onRedis(t, Config{PerUser: Per(limit, window), Global: Per(10*limit, window), Lease: Lease{For: term}})
	server.set(now / 1000)
	take := func(l *Limiter, n int) (admitted int) {
		for range n {
			d, err := l.Decide(as("a"), 1)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				admitted++
			}
		}
		return admitted
	}
	remaining := func(l *Limiter, user string) int {
		d, err := l.Info(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		return d.Remaining
	}
	crashed, closed, watch := server.limiter(cfg, clock), server.limiter(cfg, clock), server.limiter(cfg, clock)
	if take(crashed, 25)+take(closed, 35) != 60 {
		t.Fatal("refused below the limit")
	}
	stranded := func(user string, limit int) int { return limit - 60 - remaining(watch, user) }
	before := [2]int{stranded("a", limit), stranded("", 10*limit)}
	if before[0] < 2 || before[1] < 2 {
		t.Fatalf("%v units are leased: nothing tested", before)
	}
	held := closed.holds()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	after := [2]int{stranded("a", limit), stranded("", 10*limit)}
	if after[0] != before[0]-held[0] || after[1] != before[1]-held[1] || held[0] == 0 || held[1] == 0 {
		t.Fatalf("%v units were leased, %v by the one that closed, and %v are after it", before, held, after)
	}
	// The other never comes back. Its units are charged from the end of their
	// term for one window, and then all is free.
	now += int64(term)
	server.set(now / 1000)
	if got := stranded("a", limit); got != after[0] {
		t.Errorf("%d units are charged after the term, %d were leased", got, after[0])
	}
	now += int64(window) - 1000
	server.set(now / 1000)
	if got := remaining(watch, "a"); got > limit-after[0] {
		t.Errorf("%d remaining a microsecond before the end of the window, want at most %d", got, limit-after[0])
	}
	now += 1000
	server.set(now / 1000)
	if got := remaining(watch, "a"); got != limit {
		t.Errorf("%d remaining after the window, want all %d", got, limit)
	}
}

// holds is what is leased and not spent, of user a's and of the global limit.
func (l *Limiter) holds() [2]int {
	sub := newSubject("u:", "a")
	h := l.terms.Load().held
	return [2]int{h.user(&sub).lease.units(), h.all[0].lease.units()}
}

// A key lives for as long as what it holds counts, although Redis is told so only
// once a window; also beside instances that go by a shorter one.
func TestKeysOutliveWhatTheyHold(t *testing.T) {
	t.Parallel()
	const window = 400 * time.Millisecond
	cfg := onRedis(t, Config{PerUser: Per(1000, window), Lease: Lease{Max: 1}})
	l := testLimiter(t, cfg, monotonic)
	key := l.terms.Load().held.user(subjectOf(as("a"))).keys[0]
	for begun := time.Now(); time.Since(begun) < 3*window; pause(t.Context(), 5*time.Millisecond) {
		if err := l.Allow(as("a")); err != nil {
			t.Fatal(err)
		}
		if ttl, err := cfg.Redis.PTTL(t.Context(), key).Result(); err != nil || ttl < window/2 || ttl > 2*window {
			// Half a window for the time since the admission, on a busy machine.
			t.Fatalf("after %v the key lives for another %v, %v", time.Since(begun), ttl, err)
		}
	}

	long := onRedis(t, Config{PerUser: Per(100, time.Hour), Lease: Lease{Max: 1}})
	short := long
	short.PerUser = Per(1000, window)
	patient, hasty := testLimiter(t, long, monotonic), testLimiter(t, short, monotonic)
	key = patient.terms.Load().held.user(subjectOf(as("a"))).keys[0]
	for range 2 {
		if err := hasty.Allow(as("a")); err != nil { // it makes the key
			t.Fatal(err)
		}
		if err := patient.Allow(as("a")); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if err := hasty.Allow(as("a")); err != nil {
			t.Fatal(err)
		}
		if ttl, err := cfg.Redis.PTTL(t.Context(), key).Result(); err != nil || ttl < time.Hour {
			t.Fatalf("the key lives for %v, %v", ttl, err)
		}
		pause(t.Context(), window/3)
	}
}

package limithook

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var benchUser = func() context.Context {
	ctx, cancel := context.WithCancel(WithUser(context.Background(), "alice"))
	_ = cancel
	return ctx
}()

func benchLimiter(b *testing.B, cfg Config) *Limiter {
	b.Helper()
	l, err := NewLimiter(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	return l
}

func BenchmarkMemoryDecision(b *testing.B) {
	l := benchLimiter(b, Config{PerUser: Per(1<<16, time.Millisecond), Global: Per(1<<18, time.Millisecond)})
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := l.Decide(benchUser, 1); !d.Allowed {
			b.Fatal("refused")
		}
	}
}

func BenchmarkMemoryRefusal(b *testing.B) {
	l := benchLimiter(b, Config{PerUser: PerMinute(100), Global: PerMinute(10_000)})
	for range 100 {
		_ = l.Allow(benchUser)
	}
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := l.Decide(benchUser, 1); d.Allowed {
			b.Fatal("admitted")
		}
	}
}

// benchShared is a limiter on Redis, with neither limit near.
func benchShared(b *testing.B, lease int) (*Limiter, Config) {
	b.Helper()
	cfg := onRedis(b, Config{PerUser: Per(1<<20, time.Second), Global: Per(1<<22, time.Second), Lease: Lease{Max: lease}})
	return benchLimiter(b, cfg), cfg
}

// A lease that does not run out: what remains is the decision itself.
func BenchmarkLeasedDecision(b *testing.B) {
	l, _ := benchShared(b, 16)
	if err := l.Allow(benchUser); err != nil {
		b.Fatal(err)
	}
	t, sub := l.terms.Load(), subjectOf(benchUser)
	user, global := t.held.user(sub), &t.held.all[0]
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%(1<<20) == 0 { // it does not run out
			user.lease.fill(unitMask, 1<<58)
			global.lease.fill(unitMask, 1<<58)
		}
		if d, _ := l.Decide(benchUser, 1); !d.Allowed {
			b.Fatal("refused")
		}
	}
	b.StopTimer()
	user.lease.take()
	global.lease.take()
}

// Leases as they come, their round trips included.
func BenchmarkLeasing(b *testing.B) {
	l, _ := benchShared(b, 16)
	b.ReportAllocs()
	for b.Loop() {
		if d, err := l.Decide(benchUser, 1); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
	st := l.Stats()
	b.ReportMetric(float64(st.RedisCalls)/float64(st.Admitted), "trips/op")
}

func BenchmarkRememberedRefusal(b *testing.B) {
	cfg := onRedis(b, Config{PerUser: Per(1, time.Hour), Global: Per(100, time.Hour)})
	l := benchLimiter(b, cfg)
	for l.Allow(benchUser) == nil {
	}
	user := l.terms.Load().held.user(subjectOf(benchUser))
	user.refusal.Store(&refusal{cost: 1, until: 1 << 62, retry: 1 << 62})
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := l.Decide(benchUser, 1); d.Allowed {
			b.Fatal("admitted")
		}
	}
}

// What a call costs beside Redis, with a stack about as deep as a client's.
func BenchmarkLink(b *testing.B) {
	k := newLink(Config{Timeout: time.Second}.withDefaults(), nobodyThere{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.do(benchUser, runFunc(func(context.Context) error { useStack(9); return nil })); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	k.stop()
}

//go:noinline
func useStack(n int) byte {
	var frame [900]byte
	frame[n] = byte(n)
	if n > 0 {
		frame[1] += useStack(n - 1)
	}
	return frame[n] + frame[1]
}

// One decision in one round trip, beside the script called by hand.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("decision", func(b *testing.B) {
		l, _ := benchShared(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			if d, err := l.Decide(benchUser, 1); err != nil || !d.Allowed {
				b.Fatal(d, err)
			}
		}
	})
	for name, limits := range map[string][]any{
		"bare EVALSHA admits":  {1, 1, 1 << 20, 100_000, 0, 0, 0, 1 << 22, 300_000, 0, 0, 0},
		"bare EVALSHA refuses": {1, 1, 100, 60_000_000, 0, 0, 0, 10_000, 60_000_000, 0, 0, 0},
	} {
		b.Run(name, func(b *testing.B) {
			_, cfg := benchShared(b, 1)
			tag := "{" + cfg.Name + "}"
			keys := []string{tag + "log 1", tag + "log 2", tag + "lease 1", tag + "lease 2", tag + "e"}
			if err := cfg.Redis.ConfigResetStat(b.Context()).Err(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := decideScript.Run(b.Context(), cfg.Redis, keys, limits...).Err(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(serverTime(b, cfg.Redis), "server-µs/op")
		})
	}
	b.Run("PING", func(b *testing.B) {
		_, cfg := benchShared(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			if err := cfg.Redis.Ping(b.Context()).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// serverTime is what Redis spends in one EVALSHA, in microseconds.
func serverTime(b *testing.B, c redis.UniversalClient) float64 {
	b.Helper()
	info, err := c.Info(b.Context(), "commandstats").Result()
	if err != nil {
		b.Fatal(err)
	}
	_, line, _ := strings.Cut(info, "cmdstat_evalsha:")
	_, line, _ = strings.Cut(line, "usec_per_call=")
	line, _, _ = strings.Cut(line, ",")
	us, err := strconv.ParseFloat(line, 64)
	if err != nil {
		b.Fatal(err)
	}
	return us
}

package limithook

import (
	"context"
	"testing"
	"time"
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

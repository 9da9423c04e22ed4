package limithook

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/testbed"
)

// watcher keeps what is told of the records.
type watcher struct{ seen []seen }

type seen struct {
	Outcome          hook.Outcome
	Err              error
	Waited, Duration time.Duration
}

func (w *watcher) Observe(_ context.Context, r *hook.Record) {
	w.seen = append(w.seen, seen{r.Outcome, r.Err, r.Waited, r.Duration})
}

func whatCanBeRead(t *testing.T, b *bench) {
	testbed.RequireRedis(t)
	server := testbed.NewRedis(t, testbed.RedisConfig{})
	const timeout = 500 * time.Millisecond
	db, p := b.limited(t, Config{PerUser: PerMinute(2), Redis: client(t, server.Addr()), Timeout: timeout, Lease: Lease{Max: 1}, Instances: 2}, nil)
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{}
	remove, err := hub.Register(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	ctx, s, _ := scope.Begin(as("a"), "test")
	if d, ok := LastDecision(s); ok {
		t.Errorf("before any statement: %+v", d)
	}
	for i, want := range []int{1, 0, 0} {
		err := db.WithContext(ctx).Find(&[]owner{}).Error
		d, ok := LastDecision(s)
		if !ok || d.Allowed != (i < 2) || d.Limit != 2 || d.Remaining != want || d.Allowed != (err == nil) {
			t.Errorf("after statement %d: %+v, %v; %v", i, d, ok, err)
		}
	}
	if r := w.seen[2]; r.Outcome != hook.Refused || !errors.Is(r.Err, ErrLimited) {
		t.Errorf("the refused record: %+v", r)
	}
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]func() error{
		"read":  func() error { return db.WithContext(as("b")).Find(&[]owner{}).Error },
		"write": func() error { return db.WithContext(as("c")).Create(&owner{Name: "waited"}).Error },
	} {
		begun := time.Now()
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		r := w.seen[len(w.seen)-1]
		if took := time.Since(begun); took < timeout-maxMargin {
			t.Errorf("%s took %v", what, took)
		}
		if r.Waited < timeout-maxMargin || r.Waited > r.Duration {
			t.Errorf("%s: waited %v of %v", what, r.Waited, r.Duration)
		}
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	numbers := map[string]float64{}
	hub.Meter(func(m *hook.Metric, v float64, labels ...string) {
		if len(labels) != len(m.Labels) {
			t.Errorf("%s has %d labels, %d values", m.Name, len(m.Labels), len(labels))
		}
		numbers[m.Name+strings.Join(labels, ",")] += v
	})
	st := p.Stats()
	for name, want := range map[string]uint64{
		"limit_admitted_total": st.Admitted, "limit_refused_totaluser": 1, "limit_redis_errors_total": st.RedisErrors, "limit_degraded_total": 2,
	} {
		if numbers[name] != float64(want) || want == 0 {
			t.Errorf("%s is %v, want %v, not 0", name, numbers[name], want)
		}
	}
}

func lifeOfThePlugin(t *testing.T, b *bench) {
	db, p := b.limited(t, Config{PerUser: PerMinute(1)}, nil)
	if err := db.Use(p); err == nil {
		t.Error("used twice on one DB")
	}
	if err := b.open(t, nil).Use(p); err == nil || !strings.Contains(err.Error(), "already used") {
		t.Errorf("used on two DBs: %v", err)
	}
	ctx := exhaust(t, p, "a")
	wantLimited(t, "before Close", db.WithContext(ctx).Find(&[]owner{}).Error)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, f := range []func() error{
		func() error { return db.WithContext(ctx).Find(&[]owner{}).Error },
		func() error { return p.Limiter().Allow(ctx) },
	} {
		if err := f(); err != nil {
			t.Errorf("after Close: %v", err)
		}
	}
	if err := b.open(t, nil).Use(p); err == nil {
		t.Error("used after Close")
	}
	bad := b.open(t, nil)
	if err := bad.Use(New(Config{PerUser: Limit{Max: -1, Window: time.Second}, Timeout: -1})); err == nil ||
		!strings.Contains(err.Error(), "PerUser.Max") || !strings.Contains(err.Error(), "Timeout") {
		t.Errorf("invalid: %v", err)
	}
	if _, ok := bad.Plugins["infra:hook"]; ok {
		t.Error("hooked in with a faulty configuration")
	}
	for _, cfg := range []Config{{}, {PerUser: PerMinute(1), Disabled: true}} {
		free, q := b.limited(t, cfg, nil)
		for range 3 {
			if err := free.WithContext(ctx).Find(&[]owner{}).Error; err != nil {
				t.Error(err)
			}
		}
		if q.Limiter() == nil || q.Name() != "infra:limits" {
			t.Error("no limiter, or no name")
		}
	}
	if err := New(Config{}).Limiter().Allow(ctx); err != nil {
		t.Errorf("before Use: %v", err)
	}
	if err := New(Config{}).SetLimits(PerMinute(1), Limit{}); err == nil || !strings.Contains(err.Error(), "not in use yet") {
		t.Errorf("changed before Use: %v", err)
	}
	if err := New(Config{}).Close(); err != nil {
		t.Error(err)
	}
}

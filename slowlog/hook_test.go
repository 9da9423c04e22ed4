package slowlog

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

// discard keeps the lines of tests out of their output.
var discard = slog.New(slog.DiscardHandler)

// use makes a Log of cfg and uses it on db.
func use(tb testing.TB, db *gorm.DB, cfg Config) *Log {
	tb.Helper()
	if cfg.Logger == nil {
		cfg.Logger = discard
	}
	l := New(cfg)
	if err := db.Use(l); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	return l
}

// until polls cond for ten seconds.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func recordOf(text string, d time.Duration) *hook.Record {
	return &hook.Record{Text: sqltext.Analyze(text), SQL: text, Duration: d, Start: hook.Now(), Context: context.Background()}
}

func TestObserveKeepsFromTheThresholdOn(t *testing.T) {
	t.Parallel()
	l := New(Config{Threshold: 100 * time.Millisecond})
	l.Observe(t.Context(), recordOf("SELECT 1", 100*time.Millisecond-1))
	if n := len(l.Entries()); n != 0 {
		t.Fatalf("%d entries for a quick statement", n)
	}
	l.Observe(t.Context(), recordOf("SELECT 2", 100*time.Millisecond))
	if n := len(l.Entries()); n != 1 {
		t.Fatalf("%d entries for a slow statement, want 1", n)
	}
}

// Waiting is not the statement's own time.
func TestWhatAStatementWaitedForDoesNotMakeItSlow(t *testing.T) {
	t.Parallel()
	const threshold = 100 * time.Millisecond
	l := New(Config{Threshold: threshold})
	r := recordOf("SELECT 1", time.Second)
	r.Waited = time.Second - threshold + 1
	l.Observe(t.Context(), r)
	r.Waited = 2 * time.Second // clocks read apart
	l.Observe(t.Context(), r)
	if s := l.Stats(); s.Slow != 0 {
		t.Fatalf("%+v", s)
	}
	for _, own := range []time.Duration{threshold, 3 * threshold} {
		r.Waited = time.Second - own
		l.Observe(t.Context(), r)
	}
	entries, top := l.Entries(), l.Top(1)
	if len(entries) != 2 || entries[0].Duration != time.Second || entries[0].Waited != time.Second-3*threshold || entries[0].Own() != 3*threshold {
		t.Errorf("entries %+v", entries)
	}
	if len(top) != 1 || top[0].Sum != 4*threshold || top[0].Max != 3*threshold || top[0].Mean() != 2*threshold {
		t.Errorf("total %+v", top)
	}
}

func TestCallersAreWantedWhereSomethingCanBeSlow(t *testing.T) {
	t.Parallel()
	never := map[string]time.Duration{"orders": -1}
	for _, c := range []struct {
		cfg  Config
		want bool
	}{
		{Config{}, true}, {Config{Threshold: -1}, false}, {Config{Threshold: -1, PerTable: never}, false},
		{Config{Threshold: -1, PerTable: map[string]time.Duration{"orders": 1}}, true},
	} {
		if got := New(c.cfg).WantsCallers(); got != c.want {
			t.Errorf("%+v: %v", c.cfg, got)
		}
	}
}

func TestRefusedStatementsAreNotSlow(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	r := recordOf("SELECT 1", time.Hour)
	r.Outcome = hook.Refused
	l.Observe(t.Context(), r)
	gate := &hook.Record{Outcome: hook.Refused, Duration: time.Hour} // no text at the gate
	l.Observe(t.Context(), gate)
	if s := l.Stats(); s.Slow != 0 || s.Entries != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestEntryTellsWhatIsKnown(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(string) ([]string, [][]driver.Value, error) {
		return []string{"id"}, [][]driver.Value{{int64(1)}, {int64(2)}}, nil
	}}
	db := f.gorm(t, "postgres")
	type traced struct{}
	l := use(t, db, Config{
		Threshold: 1,
		User:      func(ctx context.Context) string { return "bob" },
		TraceID:   func(ctx context.Context) string { s, _ := ctx.Value(traced{}).(string); return s },
	})
	ctx, s, _ := scope.Begin(context.WithValue(t.Context(), traced{}, "4bf92f"), "GET /orders")
	defer s.End()
	before := time.Now()
	var ids []int64
	_, _, line, _ := runtime.Caller(0)
	if err := db.WithContext(ctx).Table("orders").Where("name = ?", "secret").Pluck("id", &ids).Error; err != nil {
		t.Fatal(err)
	}
	entries := l.Entries()
	if len(entries) != 1 {
		t.Fatalf("%d entries", len(entries))
	}
	e := entries[0]
	if e.Operation != "select" || e.Table != "orders" || e.Rows != 2 || e.Error != "" || e.Node != "primary" || e.Outcome != "database" ||
		e.Route != "GET /orders" || e.TraceID != "4bf92f" || e.Seen != 1 || e.Background || e.Plan != nil {
		t.Errorf("entry %+v", e)
	}
	if e.User == "" || strings.Contains(e.User, "bob") {
		t.Errorf("user %q", e.User)
	}
	if e.Time.Before(before) || e.Duration <= 0 || e.Duration > time.Since(before) {
		t.Errorf("time %v, duration %v", e.Time, e.Duration)
	}
	if want := `SELECT "id" FROM "orders" WHERE name = ?`; !strings.EqualFold(e.Shape, want) {
		t.Errorf("shape %s, want %s", e.Shape, want)
	}
	if site := e.Site.String(); !strings.Contains(site, fmt.Sprintf("hook_test.go:%d ", line+1)) || !strings.HasSuffix(site, ".TestEntryTellsWhatIsKnown") {
		t.Errorf("site %s, want line %d", site, line+1)
	}
}

func TestOneLogServesOneDatabase(t *testing.T) {
	t.Parallel()
	l := New(Config{Logger: discard})
	f := &fake{}
	if err := f.gorm(t, "postgres").Use(l); err != nil {
		t.Fatal(err)
	}
	if err := f.gorm(t, "postgres").Use(l); err == nil || !strings.Contains(err.Error(), "another *gorm.DB") {
		t.Fatalf("second database: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	used := New(Config{})
	if err := used.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.gorm(t, "postgres").Use(used); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Fatalf("after Close: %v", err)
	}
}

func TestFaultyConfigTouchesNothing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	pool := db.ConnPool
	if err := db.Use(New(Config{History: -1})); err == nil || db.ConnPool != pool {
		t.Fatalf("error %v, pool changed: %v", err, db.ConnPool != pool)
	}
}

func TestDisabledObservesNothing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	pool := db.ConnPool
	l := use(t, db, Config{Threshold: 1, Disabled: true})
	if err := db.Exec("UPDATE a SET b = 1").Error; err != nil || db.ConnPool != pool || l.Stats().Slow != 0 {
		t.Fatalf("error %v, stats %+v", err, l.Stats())
	}
}

func TestMeterTellsTheCounters(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	l := use(t, db, Config{Threshold: 1})
	for range 2 {
		if err := db.Exec("UPDATE a SET b = 1").Error; err != nil {
			t.Fatal(err)
		}
	}
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	hub.Meter(func(m *hook.Metric, v float64, labels ...string) {
		if len(labels) != len(m.Labels) {
			t.Errorf("%s: labels %v, declared %v", m.Name, labels, m.Labels)
		}
		got[strings.Join(append([]string{m.Name}, labels...), " ")] = v
	})
	for name, want := range map[string]float64{
		"slow_statements_total update": 2, "slowlog_explains_total done": 0, "slowlog_explains_total dropped": 0,
		"slowlog_explains_total failed": 0, "slowlog_explains_total skipped": 0, "slowlog_history_entries": 2, "slowlog_history_shapes": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v, want %v", name, v, want)
		}
	}
	if got["slowlog_history_bytes"] != float64(l.Stats().Bytes) || l.Stats().Bytes == 0 {
		t.Errorf("bytes %v, stats %+v", got["slowlog_history_bytes"], l.Stats())
	}
}

func BenchmarkObserveFastStatement(b *testing.B) {
	l := New(Config{PerTable: map[string]time.Duration{"orders": time.Second}})
	r, ctx := recordOf("SELECT * FROM orders WHERE id = $1", time.Millisecond), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		l.Observe(ctx, r)
	}
}

func BenchmarkObserveSlowStatement(b *testing.B) {
	l := New(Config{Queue: 1, User: func(context.Context) string { return "bob" }})
	r, ctx := recordOf("SELECT * FROM orders WHERE id = $1", time.Second), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		l.Observe(ctx, r)
	}
}

func TestFastStatementAllocatesNothing(t *testing.T) {
	l := New(Config{})
	r, ctx := recordOf("SELECT 1", time.Millisecond), context.Background()
	if n := testing.AllocsPerRun(100, func() { l.Observe(ctx, r) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

package slowlog

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

// discard keeps the lines of tests out of their output.
var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

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
	return &hook.Record{Text: sqltext.Analyze(text), SQL: text, Duration: d, Start: time.Now(), Context: context.Background()}
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

// lines is a handler that keeps what it is given as JSON.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) all(tb testing.TB) []map[string]any {
	tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]any
	for d := json.NewDecoder(bytes.NewReader(l.buf.Bytes())); ; {
		var m map[string]any
		if err := d.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return out
			}
			tb.Fatal(err)
		}
		out = append(out, m)
	}
}

func TestLineHasTheEntryAsAttributes(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(q string) ([]string, [][]driver.Value, error) {
		if strings.HasPrefix(q, "EXPLAIN") {
			return sqliteColumns, [][]driver.Value{{int64(1), int64(0), int64(0), "SCAN orders"}}, nil
		}
		return []string{"id"}, nil, nil
	}}
	db, out := f.gorm(t, "sqlite"), &lines{}
	l := use(t, db, Config{Name: "shop", Threshold: 1, Explain: Plan, Logger: slog.New(slog.NewJSONHandler(out, nil))})
	for range 2 {
		if err := db.Exec("SELECT id FROM orders WHERE name = ?", "secret").Error; err != nil {
			t.Fatal(err)
		}
		until(t, "the plan", func() bool { return l.Stats().Explained == 1 })
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := out.all(t)
	if len(got) != 2 {
		t.Fatalf("%d lines", len(got))
	}
	for key, want := range map[string]any{
		"level": "WARN", "msg": "slow statement", "db": "shop", "operation": "select", "table": "orders", "node": "primary",
		"outcome": "database", "seen": 1.0, "plan": "SCAN orders", "statement": "SELECT id FROM orders WHERE name = ?",
	} {
		if got[0][key] != want {
			t.Errorf("%s = %v, want %v", key, got[0][key], want)
		}
	}
	for i, line := range got {
		if f, _ := line["findings"].([]any); len(f) != 1 {
			t.Errorf("line %d: findings %v", i, line["findings"])
		}
		if d, _ := line["duration"].(float64); d <= 0 {
			t.Errorf("line %d: duration %v", i, line["duration"])
		}
		if s, _ := line["site"].(string); !strings.Contains(s, "hook_test.go:") {
			t.Errorf("line %d: site %v", i, line["site"])
		}
	}
	if _, again := got[1]["plan"]; again {
		t.Error("the plan was written again with the next statement of the shape")
	}
}

func TestPanicsOfTheProgramsFunctionsReachNobody(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	boom := func(context.Context) string { panic("boom") }
	sunk := 0
	l := use(t, db, Config{
		Threshold: 1, User: boom, TraceID: boom, Logger: slog.New(panicking{}),
		Sink: func(context.Context, Entry) { sunk++; panic("boom") },
	})
	for range 3 {
		if err := db.Exec("UPDATE a SET b = 1").Error; err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Panics != 3*4 || s.Entries != 3 || sunk != 3 {
		t.Fatalf("%d panics, %d entries, %d sunk; want 12, 3, 3", s.Panics, s.Entries, sunk)
	}
}

type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("boom") }

func TestCloseDrainsWhatWaits(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	hold, first := make(chan struct{}), make(chan struct{})
	var sunk int
	l := use(t, db, Config{Threshold: 1, Sink: func(context.Context, Entry) {
		if sunk++; sunk == 1 {
			close(first)
			<-hold
		}
	}})
	for range 100 {
		if err := db.Exec("UPDATE a SET b = 1").Error; err != nil {
			t.Fatal(err)
		}
	}
	<-first
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	until(t, "Close to begin", func() bool { l.intake.RLock(); defer l.intake.RUnlock(); return l.closed })
	close(hold)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if sunk != 100 {
		t.Fatalf("%d of 100 entries were sunk", sunk)
	}
	if err := db.Exec("UPDATE a SET b = 1").Error; err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Slow != 100 || s.Entries != 100 {
		t.Fatalf("after Close: %+v", s)
	}
	if err := l.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

func TestSinkThatHangsHoldsUpNeitherStatementsNorCloseForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		db := f.gorm(t, "postgres")
		ended := false
		l := use(t, db, Config{Threshold: 1, Queue: 2, Sink: func(ctx context.Context, _ Entry) { <-ctx.Done(); ended = true }})
		l.limits.general, l.limits.lowest = 0, 0 // the clock stands still in here
		for range 50 {
			if err := db.Exec("UPDATE a SET b = 1").Error; err != nil {
				t.Fatal(err)
			}
		}
		if s := l.Stats(); s.Entries != 50 || s.Unlogged < 40 {
			t.Fatalf("%+v", s)
		}
		start := time.Now()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); !ended || d != closeLines {
			t.Fatalf("Close took %v, the sink saw the end: %v", d, ended)
		}
	})
}

func TestCloseSaysWhenASinkNeverReturns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l := New(Config{Logger: discard, Sink: func(context.Context, Entry) { <-release }})
		f := &fake{}
		if err := f.gorm(t, "postgres").Use(l); err != nil {
			t.Fatal(err)
		}
		l.Observe(t.Context(), recordOf("SELECT 1", time.Hour))
		start := time.Now()
		if err := l.Close(); err == nil || time.Since(start) != closeLines+closeGrace {
			t.Fatalf("error %v after %v", err, time.Since(start))
		}
		close(release)
	})
}

func TestStatementsOfASinkAreNotLogged(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	l := use(t, db, Config{Threshold: 1, Sink: func(ctx context.Context, e Entry) {
		db.WithContext(ctx).Exec("INSERT INTO slow (shape) VALUES (?)", e.Shape)
	}})
	if err := db.Exec("UPDATE a SET b = 1").Error; err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Slow != 1 || len(f.asked("INSERT INTO slow")) != 1 {
		t.Fatalf("%+v, asked %q", s, f.asked(""))
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

func TestPlansAreDroppedWhenTooManyWait(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	l := New(Config{Threshold: 1, Explain: Plan, Logger: discard})
	hold := make(chan struct{})
	asked := make(chan struct{}, 100)
	if err := db.Use(l); err != nil {
		t.Fatal(err)
	}
	l.planner = func(context.Context, *sql.Conn, *job, Mode) (*QueryPlan, error) {
		asked <- struct{}{}
		<-hold
		return &QueryPlan{}, nil
	}
	run := func(i int) {
		if err := db.Exec("SELECT * FROM t" + strconv.Itoa(i)).Error; err != nil {
			t.Fatal(err)
		}
	}
	run(0)
	<-asked // the worker is busy
	for i := range explainQueue + 5 {
		run(i + 1)
	}
	if s := l.Stats(); s.ExplainDropped != 5 || s.Entries != explainQueue+6 {
		t.Fatalf("%+v", s)
	}
	close(hold)
	until(t, "the plans", func() bool { return l.Stats().Explained == explainQueue+1 })
	run(explainQueue + 5) // was dropped, and is due still
	until(t, "the plan that was dropped", func() bool { return l.Stats().Explained == explainQueue+2 })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Unlogged != 0 {
		t.Fatalf("lines were lost with the plans: %+v", s)
	}
}

func TestPanicOfTheDriverEndsNothing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	l.planner = func(context.Context, *sql.Conn, *job, Mode) (*QueryPlan, error) { panic("boom") }
	for i := range 2 {
		if err := db.Exec("SELECT * FROM t" + strconv.Itoa(i)).Error; err != nil {
			t.Fatal(err)
		}
	}
	until(t, "both to fail", func() bool { return l.Stats().ExplainFailed == 2 })
	if db, _ := db.DB(); db.Stats().InUse != 0 {
		t.Fatal("the connection was not given back")
	}
}

func TestUnknownDatabasesHaveNoPlans(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "sqlserver")
	l := use(t, db, Config{Threshold: 1, Explain: Analyze})
	if err := db.Exec("SELECT 1").Error; err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Slow != 1 || len(f.asked("EXPLAIN")) != 0 {
		t.Fatalf("%+v", s)
	}
}

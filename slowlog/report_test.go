package slowlog

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
		if s, _ := line["site"].(string); !strings.Contains(s, "report_test.go:") {
			t.Errorf("line %d: site %v", i, line["site"])
		}
	}
	if _, again := got[1]["plan"]; again {
		t.Error("the plan was written again with the next statement of the shape")
	}
}

func TestLineOmitsWhatIsEmpty(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	e := Entry{Time: time.Now(), Shape: "SELECT ?", Operation: "select", Rows: -1, Outcome: "database", Plan: &QueryPlan{Text: "Result"}}
	for _, a := range l.attributes(&e) {
		switch a.Key {
		case "table", "rows", "findings", "node", "error", "site", "route", "user", "trace_id", "waited", "background":
			t.Errorf("the line has %v", a)
		}
	}
}

func TestLineMergesEqualFindings(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	same := Finding{Kind: SequentialScan, Step: "Seq Scan", Table: "orders", Detail: "Seq Scan reads the whole of orders"}
	e := Entry{Plan: &QueryPlan{Findings: []Finding{same, same, same}}}
	for _, a := range l.attributes(&e) {
		if got := fmt.Sprint(a.Value.Any()); a.Key == "findings" && got != "[Seq Scan reads the whole of orders (3 times)]" {
			t.Errorf("findings %s", got)
		}
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

func (panicking) Enabled(context.Context, slog.Level) bool { return true }

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
	for i := range 3 {
		if err := db.Exec("UPDATE a SET b = 1").Error; err != nil {
			t.Fatal(err)
		}
		until(t, "the sink to write", func() bool { return len(f.asked("INSERT INTO slow")) > i })
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Slow != 3 || len(f.asked("INSERT INTO slow")) != 3 {
		t.Fatalf("%+v, asked %q", s, f.asked(""))
	}
}

package slowlog

import (
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

func TestThresholdEdges(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	ops := Config{
		Threshold:    50 * ms,
		PerOperation: map[string]time.Duration{"insert": 10 * ms, "delete": -1, "update": 0},
		PerTable:     map[string]time.Duration{"orders": 200 * ms, "sales.orders": 20 * ms, "noise": -1},
	}
	cases := []struct {
		name string
		cfg  Config
		sql  string
		d    time.Duration
		want bool
	}{
		{"default, just below", Config{}, "SELECT 1", 100*ms - 1, false},
		{"default, exactly", Config{}, "SELECT 1", 100 * ms, true},
		{"own, just below", ops, "SELECT 1", 50*ms - 1, false},
		{"own, exactly", ops, "SELECT 1", 50 * ms, true},
		{"operation lower, just below", ops, "INSERT INTO a VALUES (1)", 10*ms - 1, false},
		{"operation lower, exactly", ops, "INSERT INTO a VALUES (1)", 10 * ms, true},
		{"operation never", ops, "DELETE FROM a", time.Hour, false},
		{"operation with the default", ops, "UPDATE a SET b = 1", 99 * ms, false},
		{"table higher", ops, "SELECT * FROM orders", 199 * ms, false},
		{"table higher, exactly", ops, "SELECT * FROM orders", 200 * ms, true},
		{"table wins over operation", ops, "INSERT INTO orders VALUES (1)", 150 * ms, false},
		{"table with schema wins", ops, "SELECT * FROM sales.orders", 20 * ms, true},
		{"table in another schema, by name", ops, "SELECT * FROM old.orders", 100 * ms, false},
		{"table never", ops, "SELECT * FROM noise", time.Hour, false},
		{"negative: none", Config{Threshold: -1}, "SELECT 1", time.Hour, false},
		{"negative, but a table", Config{Threshold: -1, PerTable: map[string]time.Duration{"a": ms}}, "SELECT * FROM a", ms, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			th := newThresholds(c.cfg.withDefaults())
			if got := th.slow(c.d, sqltext.Analyze(c.sql)); got != c.want {
				t.Fatalf("slow(%v, %q) = %v, want %v", c.d, c.sql, got, c.want)
			}
		})
	}
}

func TestValidateReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Fatalf("the zero Config: %v", err)
	}
	err := Config{
		Explain: 9, ExplainEvery: time.Millisecond, History: -1, MaxBytes: 1, Queue: -1,
		PerOperation: map[string]time.Duration{"selects": 1}, PerTable: map[string]time.Duration{" ": 1},
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		if _, rule, _ := strings.Cut(line, ": must "); rule == "" {
			t.Errorf("%q states no rule as the others do", line)
		}
	}
	for _, want := range []string{
		"slowlog: Explain is Mode(9): ", "slowlog: ExplainEvery is 1ms: ", "slowlog: History is -1: ", "slowlog: MaxBytes is 1: ",
		"slowlog: Queue is -1: ", `slowlog: PerOperation["selects"] is 1ns: `, `slowlog: PerTable[" "] is 1ns: `,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestNewWithAFaultyConfigDoesNotPanic(t *testing.T) {
	t.Parallel()
	l := New(Config{History: -5, Queue: -1, MaxBytes: -1})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	tables := map[string]time.Duration{"a": time.Second}
	l := New(Config{PerTable: tables})
	tables["a"] = 1
	if l.limits.slow(time.Millisecond, sqltext.Analyze("SELECT * FROM a")) {
		t.Fatal("a change of the caller's map came through")
	}
}

func TestEveryOperationHasAName(t *testing.T) {
	t.Parallel()
	for op := range sqltext.Operation(255) {
		if int(op) >= maxOperations && op.String() != "unknown" {
			t.Fatalf("operation %v is above maxOperations", op)
		}
	}
	if op, ok := operationNamed("unknown"); !ok || op != sqltext.Unknown {
		t.Fatal("unknown is an operation")
	}
}

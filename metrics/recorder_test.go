package metrics

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gorminfra/infra/internal/sqltext"
)

func recorderFor(cfg Config) *recorder { return newRecorder(cfg.withDefaults()) }

func selectFrom(table, node string) *statement {
	return &statement{operation: sqltext.Select, table: table, node: node, duration: 3 * time.Millisecond}
}

func expect(t *testing.T, c prometheus.Collector, want string, names ...string) {
	t.Helper()
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestStatementIsCountedByWhatItWas(t *testing.T) {
	t.Parallel()
	rec := recorderFor(Config{Name: "shop", Buckets: []float64{0.001, 0.01}})
	rec.statement(selectFrom("orders", "r1"))
	rec.statement(&statement{operation: sqltext.Select, outcome: l1, table: "orders", duration: time.Microsecond, waited: time.Second / 2})
	rec.statement(&statement{operation: sqltext.Insert, outcome: failed, class: classConstraint, table: "orders", node: "primary", retries: 2})
	rec.statement(&statement{outcome: refused})

	expect(t, rec, `
# HELP db_client_operation_duration_seconds Duration of statements, without their preloads, hooks and commit.
# TYPE db_client_operation_duration_seconds histogram
db_client_operation_duration_seconds_bucket{db="shop",node="",operation="select",outcome="l1",table="orders",le="0.001"} 1
db_client_operation_duration_seconds_bucket{db="shop",node="",operation="select",outcome="l1",table="orders",le="0.01"} 1
db_client_operation_duration_seconds_bucket{db="shop",node="",operation="select",outcome="l1",table="orders",le="+Inf"} 1
db_client_operation_duration_seconds_sum{db="shop",node="",operation="select",outcome="l1",table="orders"} 1e-06
db_client_operation_duration_seconds_count{db="shop",node="",operation="select",outcome="l1",table="orders"} 1
db_client_operation_duration_seconds_bucket{db="shop",node="primary",operation="insert",outcome="error",table="orders",le="0.001"} 1
db_client_operation_duration_seconds_bucket{db="shop",node="primary",operation="insert",outcome="error",table="orders",le="0.01"} 1
db_client_operation_duration_seconds_bucket{db="shop",node="primary",operation="insert",outcome="error",table="orders",le="+Inf"} 1
db_client_operation_duration_seconds_sum{db="shop",node="primary",operation="insert",outcome="error",table="orders"} 0
db_client_operation_duration_seconds_count{db="shop",node="primary",operation="insert",outcome="error",table="orders"} 1
db_client_operation_duration_seconds_bucket{db="shop",node="r1",operation="select",outcome="database",table="orders",le="0.001"} 0
db_client_operation_duration_seconds_bucket{db="shop",node="r1",operation="select",outcome="database",table="orders",le="0.01"} 1
db_client_operation_duration_seconds_bucket{db="shop",node="r1",operation="select",outcome="database",table="orders",le="+Inf"} 1
db_client_operation_duration_seconds_sum{db="shop",node="r1",operation="select",outcome="database",table="orders"} 0.003
db_client_operation_duration_seconds_count{db="shop",node="r1",operation="select",outcome="database",table="orders"} 1
`, "db_client_operation_duration_seconds")
	expect(t, rec, `
# HELP infra_statements_total Statements by where their answer came from.
# TYPE infra_statements_total counter
infra_statements_total{db="shop",outcome="background"} 0
infra_statements_total{db="shop",outcome="database"} 1
infra_statements_total{db="shop",outcome="error"} 1
infra_statements_total{db="shop",outcome="l1"} 1
infra_statements_total{db="shop",outcome="l2"} 0
infra_statements_total{db="shop",outcome="refused"} 1
infra_statements_total{db="shop",outcome="shared"} 0
# HELP infra_statement_retries_total Attempts of statements after the first.
# TYPE infra_statement_retries_total counter
infra_statement_retries_total{db="shop"} 2
# HELP infra_statement_wait_seconds_total Time that statements waited for another one's answer or for a limit.
# TYPE infra_statement_wait_seconds_total counter
infra_statement_wait_seconds_total{db="shop"} 0.5
`, "infra_statements_total", "infra_statement_retries_total", "infra_statement_wait_seconds_total")
	want := Stats{Database: 1, L1: 1, Errors: 1, Refused: 1, Retries: 2, Waited: time.Second / 2, Tables: 1}
	if got := rec.stats(); got != want {
		t.Errorf("Stats\ngot  %+v\nwant %+v", got, want)
	}
}

func TestRequestIsRecordedByRouteAndCode(t *testing.T) {
	t.Parallel()
	rec := recorderFor(Config{MaxRoutes: 2})
	rec.request("GET /a", time.Second, 200)
	rec.request("GET /a", time.Second, 429)
	rec.request("GET /a", time.Second, 7)
	rec.request("GET /b", time.Second, 200)
	rec.request("GET /c", time.Second, 200)
	rec.request("GET /d", time.Second, 200)
	got := labelPairs(t, rec.requests, "route", "code")
	want := "GET /a 200:1, GET /a 429:1, GET /a other:1, GET /b 200:1, other 200:2"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTablesAndNodesBeyondTheBoundAreOther(t *testing.T) {
	t.Parallel()
	rec := recorderFor(Config{MaxTables: 3})
	for i := range 1000 {
		rec.statement(selectFrom(fmt.Sprintf("t%d", i), "primary"))
	}
	got := labelPairs(t, rec.operations, "table")
	if want := "other:997, t0:1, t1:1, t2:1"; got != want {
		t.Errorf("tables: got %s, want %s", got, want)
	}
	if n := rec.stats().Tables; n != 3 {
		t.Errorf("Stats: %d tables, want 3", n)
	}

	rec = recorderFor(Config{})
	for i := range 1000 {
		rec.statement(selectFrom("t", fmt.Sprintf("r%d", i)))
	}
	if n := testutil.CollectAndCount(rec.operations); n != maxNodes+1 {
		t.Errorf("%d series for 1000 nodes, want %d", n, maxNodes+1)
	}
	if n := len(rec.tables.of("t").series.load()); n != maxNodes+1 {
		t.Errorf("%d series are remembered for 1000 nodes, want %d", n, maxNodes+1)
	}
}

func TestLabelsAreValidUTF8AndShort(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	rec := recorderFor(Config{})
	reg.MustRegister(rec)
	for _, name := range []string{"", "a\xffb", "\xc3\x28", "käse", strings.Repeat("é", 200), "x" + strings.Repeat("é", 200), strings.Repeat("\xff", 300), "a\x00b", "a\nb\"c\\"} {
		rec.statement(selectFrom(name, name))
		rec.request(name, time.Second, 200)
		if v := labelValue(name); !utf8.ValidString(v) || len(v) > maxLabel {
			t.Errorf("%q became %q", name, v)
		}
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

func TestOwnNamesPassTheLinter(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	rec := recorderFor(Config{})
	reg.MustRegister(rec)
	rec.statement(selectFrom("t", "primary"))
	rec.request("GET /", time.Second, 200)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(reg); err != nil || n == 0 {
		t.Errorf("%d metrics were linted, %v", n, err)
	}
}

func TestEveryClassIsExportedFromTheStart(t *testing.T) {
	t.Parallel()
	if n := testutil.CollectAndCount(recorderFor(Config{}), "infra_statement_errors_total"); n != len(classNames)-1 {
		t.Errorf("%d classes, want %d", n, len(classNames)-1)
	}
}

func TestGrownMapKeepsItsBound(t *testing.T) {
	t.Parallel()
	var g grown[string, int]
	one := func() int { return 1 }
	if v, ok := g.add("a", 1, one); v != 1 || !ok {
		t.Errorf("a: %d, %v", v, ok)
	}
	if _, ok := g.add("b", 1, one); ok {
		t.Error("b was added above the bound")
	}
	if v, ok := g.add("a", 1, func() int { return 2 }); v != 1 || !ok {
		t.Errorf("a again: %d, %v", v, ok)
	}
}

func TestManyGoroutinesLoseNothing(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	rec := recorderFor(Config{MaxTables: 5})
	reg.MustRegister(rec)
	const goroutines, each = 8, 400
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				rec.statement(selectFrom(fmt.Sprintf("t%d", i%20), fmt.Sprintf("n%d", g)))
				rec.request(fmt.Sprintf("r%d", i%20), time.Millisecond, 200+i%3)
				if i%100 == 0 {
					if _, err := reg.Gather(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := rec.stats().Database; n != goroutines*each {
		t.Errorf("%d statements, want %d", n, goroutines*each)
	}
	if n := total(t, rec.operations); n != goroutines*each {
		t.Errorf("%d durations, want %d", n, goroutines*each)
	}
	if n := total(t, rec.requests); n != goroutines*each {
		t.Errorf("%d requests, want %d", n, goroutines*each)
	}
}

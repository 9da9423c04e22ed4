package nplusone

import (
	"context"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

const benchSQL = `SELECT * FROM "authors" WHERE "authors"."id" = $1 AND "authors"."deleted_at" IS NULL ORDER BY "authors"."id" LIMIT $2`

// ints are parameters as an interface holds them, made once: what is measured is
// not the caller's conversion.
var ints = func() (all [4096]any) {
	for i := range all {
		all[i] = 1000 + i
	}
	return all
}()

func benchmarkObserve(b *testing.B, cfg Config, scoped bool, fresh bool) {
	o := observer{New(cfg)}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var s *scope.Scope
	if scoped {
		ctx, s, _ = scope.Begin(ctx, "bench")
	}
	args := []any{1, 1}
	db := &gorm.DB{Statement: &gorm.Statement{}}
	record := func() *hook.Record {
		return &hook.Record{
			Chain: hook.Query, DB: db, Context: ctx, SQL: benchSQL, Args: args, Text: sqltext.Analyze(benchSQL), Scope: s,
			Start: hook.Now(), Duration: time.Millisecond, Rows: 1,
		}
	}
	r := record()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		args[0] = ints[i%len(ints)]
		i++
		if fresh {
			r = record()
		}
		deep(benchDepth, func() { o.Observe(ctx, r) })
	}
}

// benchDepth is about the depth of GORM below a handler below net/http.
const benchDepth = 20

// deep calls f through n frames of four functions.
//
//go:noinline
func deep(n int, f func()) {
	if n <= 0 {
		f()
		return
	}
	deeper(n-1, f)
}

//go:noinline
func deeper(n int, f func()) { deepest(n-1, f) }

//go:noinline
func deepest(n int, f func()) { bottom(n-1, f) }

//go:noinline
func bottom(n int, f func()) { deep(n-1, f) }

// BenchmarkWithoutScope is a statement that nobody looks at.
func BenchmarkWithoutScope(b *testing.B) { benchmarkObserve(b, Config{}, false, false) }

// BenchmarkProduction is a statement of a scope, without call sites.
func BenchmarkProduction(b *testing.B) { benchmarkObserve(b, Config{}, true, false) }

// BenchmarkDevelopment is one with call sites; the stack is captured anew each
// time, and making the record is in the number (see BenchmarkRecordAlone).
func BenchmarkDevelopment(b *testing.B) { benchmarkObserve(b, Config{Development: true}, true, true) }

// BenchmarkRecordAlone is what BenchmarkDevelopment measures besides.
func BenchmarkRecordAlone(b *testing.B) { benchmarkObserve(b, Config{}, false, true) }

// BenchmarkScope is a request of twelve different statements with its report.
func BenchmarkScope(b *testing.B) {
	d := New(Config{})
	o := observer{d}
	texts := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}
	records := make([]*hook.Record, len(texts))
	for i, t := range texts {
		sql := "SELECT * FROM " + t + " WHERE id = $1"
		records[i] = &hook.Record{Chain: hook.Query, SQL: sql, Args: ints[:1], Text: sqltext.Analyze(sql), Duration: time.Millisecond, Start: hook.Now()}
	}
	b.ReportAllocs()
	for b.Loop() {
		ctx, s, _ := scope.Begin(context.Background(), "bench")
		for _, r := range records {
			r.Scope = s
			o.Observe(ctx, r)
		}
		d.Finish(s)
	}
}

// AllocsPerRun wants no test beside it.
func TestCostOfAStatement(t *testing.T) {
	d := New(Config{})
	o := observer{d}
	ctx, s, _ := scope.Begin(t.Context(), "cost")
	args := []any{1, 1}
	r := &hook.Record{Chain: hook.Query, Context: ctx, SQL: benchSQL, Args: args, Text: sqltext.Analyze(benchSQL), Start: hook.Now(), Rows: 1}
	if n := testing.AllocsPerRun(1000, func() { o.Observe(ctx, r) }); n != 0 {
		t.Errorf("%v allocations without a scope", n)
	}
	r.Scope = s
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		args[0] = ints[i%len(ints)]
		i++
		o.Observe(ctx, r)
	}); n != 0 {
		t.Errorf("%v allocations in a scope", n)
	}
	if got := d.Report(s); got.Statements != 1001 || got.Findings[0].Distinct != 1001 {
		t.Errorf("%d statements, %d distinct", got.Statements, got.Findings[0].Distinct)
	}
}

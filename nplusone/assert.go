package nplusone

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gorminfra/infra/internal/scope"
)

// TB is the part of testing.TB in use, so that programs do not link package
// testing.
type TB interface {
	Helper()
	Name() string
	Context() context.Context
	Errorf(format string, args ...any)
}

// testThreshold is the number of statements that make a finding in a test, where
// there are few rows.
const testThreshold = 2

// underTest is set once a test has asked for call sites.
var underTest atomic.Bool

// ForTest returns t.Context() with a scope in which call sites and parameter
// samples are kept, whatever Config.Development says. Run the code under test
// with it, then call AssertNone or AssertMaxQueries.
func ForTest(t TB) context.Context {
	t.Helper()
	return testScope(t.Context(), t.Name())
}

func testScope(ctx context.Context, name string) context.Context {
	underTest.Store(true)
	ctx, s, _ := scope.Begin(ctx, name)
	slot.Get(s).detail.Store(true)
	return ctx
}

// AssertNone fails t when the statements of ctx's scope so far hold a finding,
// from two statements of one shape and place on, whatever Config.Threshold says.
// It also fails when it saw no statement, which would prove nothing.
func AssertNone(t TB, ctx context.Context) {
	t.Helper()
	r, ok := inspect(t, ctx, "AssertNone")
	switch {
	case !ok:
	case r.Statements == 0:
		t.Errorf("nplusone: AssertNone saw no statement: %s", nothingSeen)
	case len(r.Findings) > 0:
		t.Errorf("nplusone: %s\n\n%s", findingsWord(len(r.Findings)), indent(r.Text()))
	}
}

const nothingSeen = "use the plugin on the *gorm.DB (db.Use) and pass the context (db.WithContext(ctx))"

// AssertMaxQueries fails t when the scope of ctx ran more than n statements so
// far, those answered from a cache included. With n above 0 it also fails when
// it saw none, which would prove nothing.
func AssertMaxQueries(t TB, ctx context.Context, n int) {
	t.Helper()
	r, ok := inspect(t, ctx, "AssertMaxQueries")
	switch {
	case !ok:
	case r.Statements == 0 && n > 0:
		t.Errorf("nplusone: AssertMaxQueries saw no statement: %s", nothingSeen)
	case r.Statements > n:
		t.Errorf("nplusone: %s, at most %d allowed\n\n%s", plural(r.Statements, "statement"), n, indent(listQueries(r)))
	}
}

// AssertConstantQueries fails t when the number of statements grows with the
// number of rows: for each size it calls populate and then run, whose statements
// are counted. populate(n) adds n rows, or sees to it that there are n; run does
// its work with the context that it is given.
func AssertConstantQueries(t TB, sizes []int, populate func(n int), run func(ctx context.Context)) {
	t.Helper()
	if len(sizes) < 2 {
		t.Errorf("nplusone: AssertConstantQueries needs at least two sizes to compare, and got %v", sizes)
		return
	}
	reports := make([]Report, len(sizes))
	for i, n := range sizes {
		populate(n)
		ctx := testScope(t.Context(), fmt.Sprintf("%s/size=%d", t.Name(), n))
		run(ctx)
		s := scope.From(ctx)
		s.End()
		reports[i] = testReport(s)
	}
	for i := range reports {
		if reports[i].Statements == 0 {
			t.Errorf("nplusone: AssertConstantQueries saw no statement: %s", nothingSeen)
			return
		}
	}
	for i := 1; i < len(reports); i++ {
		if reports[i].Statements != reports[0].Statements {
			t.Errorf("nplusone: %s with populate(%d), %s with populate(%d)\n\n%s", plural(reports[0].Statements, "statement"), sizes[0],
				plural(reports[i].Statements, "statement"), sizes[i], indent(compare(reports[0], reports[i])))
			return
		}
	}
}

// inspect returns the test's report of ctx's scope.
func inspect(t TB, ctx context.Context, caller string) (Report, bool) {
	t.Helper()
	s := scope.From(ctx)
	if s == nil {
		t.Errorf("nplusone: %s: the context carries no scope: make it with nplusone.ForTest(t), nplusone.Begin or the Middleware", caller)
		return Report{}, false
	}
	return testReport(s), true
}

func testReport(s *scope.Scope) Report {
	return reportOf(s, func(_ *Detector, t *tracker) Report { return t.report(testThreshold) })
}

// listQueries lists the shapes by how often they ran.
func listQueries(r Report) string {
	qs := slices.Clone(r.queries)
	slices.SortStableFunc(qs, func(a, b query) int { return b.count - a.count })
	var b strings.Builder
	for i, q := range qs {
		if i == 20 {
			fmt.Fprintf(&b, "… and %d other shapes\n", len(qs)-i)
			break
		}
		fmt.Fprintf(&b, "%4d x  %s%s\n", q.count, cut(q.shape, 120), at(q.at))
	}
	return b.String()
}

// compare lists the shapes whose count differs, and the findings of the larger
// report.
func compare(small, large Report) string {
	var b strings.Builder
	for _, q := range large.queries {
		before := 0
		for _, o := range small.queries {
			if o.key == q.key {
				before = o.count
			}
		}
		if before != q.count {
			fmt.Fprintf(&b, "%d -> %d  %s%s\n", before, q.count, cut(q.shape, 120), at(q.at))
		}
	}
	for _, o := range small.queries {
		if !slices.ContainsFunc(large.queries, func(q query) bool { return q.key == o.key }) {
			fmt.Fprintf(&b, "%d -> 0  %s%s\n", o.count, cut(o.shape, 120), at(o.at))
		}
	}
	for i := range large.Findings {
		b.WriteString("\n" + large.Findings[i].String())
	}
	return b.String()
}

func at(s *site) string {
	if p := s.place(); p != nil {
		return "\n        " + p.String()
	}
	return ""
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n    ")
}

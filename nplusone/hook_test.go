package nplusone

import (
	"testing"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

func TestStatementsOfNobodysAreNotSeen(t *testing.T) {
	t.Parallel()
	d := New(Config{})
	ctx, s, _ := scope.Begin(t.Context(), "x")
	records := []*hook.Record{{Background: true}, {Outcome: hook.Refused}}
	for _, r := range records {
		r.Scope, r.Context, r.SQL, r.Text, r.Start = s, ctx, benchSQL, sqltext.Analyze(benchSQL), hook.Now()
		observer{d}.Observe(ctx, r)
	}
	if n := d.Statements(s); n != 0 {
		t.Errorf("%d statements seen", n)
	}
}

func TestParametersOfRowsAreNotFollowed(t *testing.T) {
	t.Parallel()
	d := New(Config{})
	ctx, s, _ := scope.Begin(t.Context(), "x")
	for range 5 { // what they point to may have changed since
		one := new(int)
		observer{d}.Observe(ctx, &hook.Record{
			Chain: hook.Row, Scope: s, Context: ctx, SQL: benchSQL, Args: []any{one}, Text: sqltext.Analyze(benchSQL), Start: hook.Now(),
		})
	}
	if f := d.Report(s).Findings; len(f) != 1 || f[0].Distinct != 5 {
		t.Errorf("findings %+v", f)
	}
}

func TestFindingsAreSortedByTheirTime(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, Config{})
	for i := range 10 {
		tr.note(statement("SELECT * FROM a WHERE id = $1", nil, i))
		e := statement("SELECT * FROM b WHERE id = $1", nil, i)
		e.took *= 2
		tr.note(e)
	}
	if f := tr.report(2).Findings; len(f) != 2 || f[0].Table != "b" {
		t.Errorf("findings %+v", f)
	}
}

func TestPlacesOfOneShapeAreBounded(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, Config{})
	for i := range 2 * maxGroups {
		tr.note(statement("SELECT 1", &site{hash: uint64(i)}))
	}
	if r := tr.report(2); len(tr.groups) > maxGroups || r.Dropped == 0 || r.Statements != 2*maxGroups {
		t.Errorf("%d groups, %d dropped of %d", len(tr.groups), r.Dropped, r.Statements)
	}
}

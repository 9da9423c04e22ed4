package resolver

import (
	"strings"
	"testing"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"
)

// What no text shows and no catalogue tells: a standby refuses it, and the program
// gets the answer that it would get without replicas.
func TestR06AReadThatAStandbyRefusesRunsOnThePrimary(t *testing.T) {
	t.Parallel()
	g, ctx := lagging(t)
	must(t, g.c.Primary().Exec(ctx, g.name, `
		CREATE UNLOGGED TABLE loose (n bigint); INSERT INTO loose VALUES (7);
		CREATE FUNCTION put(v bigint) RETURNS bigint LANGUAGE sql AS 'UPDATE items SET n = v WHERE id = 1 RETURNING n';
		CREATE FUNCTION sworn(v bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM put(v); RETURN v; END';`))
	must(t, g.c.WaitCaughtUp(ctx))
	g.allInUse()
	g.pauseProven(ctx)
	for name, db := range map[string]*gorm.DB{
		"plain":    g.db,
		"prepared": g.db.Session(&gorm.Session{PrepareStmt: true}),
		"named":    g.db.Clauses(dbresolver.Use("replica1")),
	} {
		var n int64
		must(t, db.WithContext(inScope(ctx, "unlogged")).Raw("SELECT n FROM loose").Scan(&n).Error)
		if n != 7 {
			t.Errorf("%s: the unlogged table has %d, want 7", name, n)
		}
	}
	if n := g.node("replica1"); n.Ejections > 0 || g.node("primary").Decisions["retry"] != 3 {
		t.Errorf("%d ejections of the replica, decisions of the primary %v", n.Ejections, g.node("primary").Decisions)
	}
	rows, err := g.db.WithContext(inScope(ctx, "rows")).Raw("SELECT n FROM loose").Rows()
	must(t, err)
	if !rows.Next() || rows.Close() != nil {
		t.Error("no row of a caller's own loop")
	}

	// Background work stays off the primary, and is told why.
	var n int64
	err = g.db.WithContext(WithPriority(inScope(ctx, "background"), Background)).Raw("SELECT n FROM loose").Scan(&n).Error
	if err == nil || !strings.Contains(err.Error(), "during recovery") {
		t.Errorf("a Background read of the unlogged table: %v", err)
	}
	// An error that the primary gives too is the caller's.
	err = g.db.WithContext(inScope(ctx, "own")).Raw("SELECT 1 FROM items LIMIT -1").Scan(&n).Error
	if before := g.node("primary").Decisions["retry"]; err == nil || before != 4 {
		t.Errorf("an error of the statement's own: %v, %d second attempts", err, before)
	}

	// What was taken for a read has written, and is seen. Of the process: a scope stays
	// on the primary anyway, since it was shown the answer there.
	must(t, g.db.WithContext(ctx).Raw("SELECT sworn(?)", 41).Scan(&n).Error)
	if got := g.read(ctx, 1); n != 41 || got.N != 41 {
		t.Errorf("the function answered %d, and then %+v is read", n, got)
	}
	g.goOn(ctx)
}

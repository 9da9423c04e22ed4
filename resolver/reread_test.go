package resolver

import (
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// Another program migrates: nothing of it passes the plugin.
func TestR06FunctionsThatAnotherProgramChangesAreReadAnew(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	ctx := deadline(t)
	must(t, g.c.Primary().Exec(ctx, g.name, "CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'; CREATE VIEW v AS SELECT 1 AS one"))
	must(t, g.c.WaitCaughtUp(ctx))
	cfg := g.r.given
	g.close()
	g.r = New(cfg)
	g.r.rereads = 20 * time.Millisecond
	g.db = openWith(t, g.primary, g.r)
	must(t, g.r.Ready(ctx))
	g.allInUse()
	onReplica := func(sql string) (yes bool) {
		t.Helper()
		must(t, g.db.WithContext(inScope(ctx, "call")).Raw("SELECT pg_is_in_recovery() FROM "+sql).Scan(&yes).Error)
		return yes
	}
	if !onReplica("f()") || !onReplica("v") {
		t.Fatal("what changes nothing is kept from the replicas")
	}
	must(t, g.c.Primary().Exec(ctx, g.name, `ALTER FUNCTION f() VOLATILE;
		CREATE FUNCTION g() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
		CREATE OR REPLACE VIEW v AS SELECT f() AS one`))
	must(t, g.c.WaitCaughtUp(ctx))
	eventually(t, "what is volatile now to be called on the primary", func() bool { return !onReplica("f()") && !onReplica("v") })
	eventually(t, "what is new and stable to be called on replicas", func() bool { return onReplica("g()") })
}

package resolver

import (
	"context"
	"testing"
)

func TestWritesThatThePluginDoesNotSeeAreTold(t *testing.T) {
	t.Parallel()
	g, ctx := lagging(t)
	pool, err := g.db.DB()
	must(t, err)
	for n, told := range []context.Context{inScope(ctx, "request"), g.r.WithToken(ctx, "of a job"), ctx} {
		g.pauseProven(ctx)
		if n == 1 {
			optionsOf(told).sessions.first.handed = nil // which would mean the primary
		}
		_, err := pool.ExecContext(ctx, "UPDATE items SET n = $1 WHERE id = 1", 100+n)
		must(t, err)
		g.r.Wrote(told)
		if got := g.read(told, 1); got.N != int64(100+n) {
			t.Errorf("case %d: read %+v", n, got)
		}
		stranger := g.read(inScope(ctx, "stranger"), 1)
		if all := told == ctx; (stranger.N == int64(100+n)) != all {
			t.Errorf("case %d: a stranger reads %+v", n, stranger)
		}
		g.goOn(ctx)
	}
	New(Config{}).Wrote(ctx) // before db.Use
}

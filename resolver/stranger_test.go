package resolver

import (
	"errors"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// A primary of another system, on a higher timeline than ours, and another
// database of the standby that is promoted: neither is ever followed, and the one
// that has our data is.
func TestR11APrimaryWithOtherDataIsNeverFollowed(t *testing.T) {
	t.Parallel()
	other := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	ctx := deadline(t)
	must(t, other.Replica(0).Promote(ctx))
	must(t, other.Primary().Exec(ctx, "", "CREATE TABLE items (id bigserial PRIMARY KEY, n bigint)"))
	sister := c.NewDatabase(t)
	g := newRig(t, c, func(cfg *Config) {
		cfg.Replicas = []Node{
			{Name: "stranger", DSN: other.Primary().DSN("")},
			{Name: "sister", DSN: c.Replica(0).DSN(sister)},
			{Name: "right", DSN: cfg.Replicas[0].DSN},
		}
		cfg.Probe.Interval = 20 * time.Millisecond
		cfg.FailoverWait = 100 * time.Millisecond
	})
	eventually(t, "all to have answered", func() bool {
		return g.node("right").Up && g.node("sister").Misfit == "other database" && g.node("stranger").Misfit == "wrong role"
	})
	must(t, c.Primary().StopImmediate())
	eventually(t, "the loss to be noticed", func() bool { return g.r.Stats().NoPrimary != "" })
	probes := g.node("stranger").Probes
	eventually(t, "the stranger to be asked often", func() bool {
		if err := g.db.WithContext(inScope(ctx, "w")).Create(&item{N: 666}).Error; !errors.Is(err, ErrNoPrimary) {
			t.Fatalf("without a primary a write gives %v", err)
		}
		return g.node("stranger").Probes > probes+20
	})
	if g.leader() != "primary" {
		t.Fatalf("%q leads", g.leader())
	}
	next := c.Replica(0)
	must(t, next.Promote(ctx))
	eventually(t, "the promoted one to be followed", func() bool { return g.leader() == "right" })
	must(t, g.db.WithContext(inScope(ctx, "w")).Create(&item{ID: 5000}).Error)
	if s := g.r.Stats(); s.Failovers != 1 || s.LastFailover.To != "right" {
		t.Errorf("%d failovers, the last to %q", s.Failovers, s.LastFailover.To)
	}
	if g.ids(next)[5000] != 1 {
		t.Error("the write is elsewhere")
	}
}

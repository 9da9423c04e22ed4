package resolver

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// The common formulas eject every replica when nothing is written for longer than
// the bound, or with the first write that follows.
func TestR01IdleServersLoseNoReplica(t *testing.T) {
	t.Parallel()
	const bound = 2 * time.Second
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, nil)
	g.close()
	var slept atomic.Int64
	g.r = New(Config{
		Replicas: DSNs(g.nodes...), MaxLag: bound, Probe: Probe{Interval: 50 * time.Millisecond, Timeout: 10 * time.Second},
		Pool: Pool{Max: 8, Min: 1}, Logger: quiet(),
	})
	g.r.now = func() int64 { return monotonic() + slept.Load() }
	g.db = openWith(t, g.primary, g.r)
	ctx := deadline(t)
	must(t, g.r.Ready(ctx))
	g.allInUse()
	nobodyLost := func(when string) {
		t.Helper()
		for _, n := range g.r.Nodes() {
			if !n.Up || n.Ejections > 0 || n.Decisions["lag"]+n.Decisions["down"] > 0 {
				t.Errorf("%s: %+v", when, n)
			}
		}
	}
	read := func() { g.read(inScope(ctx, "request"), 1) }

	conn, err := c.Replica(0).Conn(ctx, "")
	must(t, err)
	defer conn.Close(ctx)
	eventually(t, "the common formula to say that a replica lags", func() (lags bool) {
		read()
		must(t, conn.QueryRow(ctx, "SELECT now() - pg_last_xact_replay_timestamp() > $1", 2*bound).Scan(&lags))
		return lags
	})
	nobodyLost("idle")

	must(t, c.Primary().Exec(ctx, g.name, "UPDATE items SET n = 1"))
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		read()
	}
	nobodyLost("after the first write")

	// The process itself sleeps: all that it knows is out of date, which is no
	// evidence against anybody.
	slept.Store(int64(10 * time.Minute))
	g.allInUse()
	eventually(t, "reads to go to replicas", func() bool { return g.read(inScope(ctx, "request"), 1).Standby })
	must(t, c.Primary().Exec(ctx, g.name, "UPDATE items SET n = 2"))
	for range 100 {
		read()
	}
	for _, n := range g.r.Nodes() {
		if !n.Up || n.Ejections > 0 {
			t.Errorf("after ten minutes of sleep: %+v", n)
		}
	}
	if s := g.r.Stats(); s.Failovers != 0 || s.NoPrimary != "" {
		t.Errorf("%d failovers, %q", s.Failovers, s.NoPrimary)
	}
}

package resolver

import (
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// A node that falls again and again stays out for longer each time, and begins
// with a small share. No read fails by it.
func TestR13AFlappingNodeIsTrustedLessEachTime(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	proxy := testbed.NewProxy(t, c.Replica(0).Addr())
	g.close()
	g.open(Config{
		Replicas: DSNs(testbed.DSN(proxy.Addr(), g.name), g.nodes[1]), MaxLag: time.Hour, SlowStart: 6 * time.Second,
		Probe: Probe{Interval: 50 * time.Millisecond, Timeout: 10 * time.Second}, Pool: Pool{Max: 16, Min: 1}, Logger: quiet(),
	})
	g.allInUse()
	share := func(reads int) float64 {
		hits := 0
		for range reads {
			if g.read(inScope(deadline(t), "request"), 1).Port == c.Replica(0).Port() {
				hits++
			}
		}
		return float64(hits) / float64(reads)
	}
	rs := g.readAllTheTime(2)
	rs.more(t, 50)
	for i, least := range []time.Duration{0, firstPenalty, 2 * firstPenalty, 4 * firstPenalty} {
		before := g.node("replica1").Ejections
		proxy.Cut()
		eventually(t, "an ejection", func() bool { n := g.node("replica1"); return n.Ejections == before+1 && !n.Up })
		out := time.Now()
		must(t, proxy.Restore())
		eventually(t, "the node to come back", func() bool { return g.node("replica1").Up })
		// The ejection was a moment before it was seen here.
		if took := time.Since(out); took < least-least/5 {
			t.Errorf("ejection %d: it was back after %v, want %v", i+1, took, least)
		}
	}
	if s := share(60); s > 0.35 {
		t.Errorf("just back, it takes %.0f %% of the reads", 100*s)
	}
	eventually(t, "the node to take its whole share", func() bool { return share(60) > 0.35 })
	rs.stop()
	t.Logf("%d reads, %d failed", rs.ok.Load(), rs.failed.Load())
	if n := g.node("replica1"); n.Ejections != 4 {
		t.Errorf("%d ejections", n.Ejections)
	}
}

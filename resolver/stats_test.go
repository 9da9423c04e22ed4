package resolver

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestPrimaryThatNobodyProbesIsNotDown(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	db, r := open(t, c.Primary().DSN(""), Config{Pool: Pool{Min: -1}, Probe: Probe{Interval: 5 * time.Second, Timeout: 10 * time.Second}, Logger: quiet()})
	primary := func() NodeStatus {
		t.Helper()
		if n := r.Nodes(); len(n) == 1 {
			return n[0]
		}
		t.Fatalf("%+v", r.Nodes())
		return NodeStatus{}
	}
	if n := primary(); n.Watched || !n.Up || n.Staleness != 0 || n.Probes != 0 || n.LSN != 0 {
		t.Errorf("without replicas: %+v", n)
	}
	// Somebody needs its WAL position: from now on it is probed.
	h, err := hook.Attach(db)
	must(t, err)
	_, err = h.Positioner().PositionAfter(deadline(t), time.Now())
	must(t, err)
	if n := primary(); !n.Watched || !n.Up || n.Staleness != 0 || n.Probes == 0 || n.LSN == 0 {
		t.Errorf("once it was asked for a position: %+v", n)
	}

	_, r = open(t, c.Primary().DSN(""), Config{Replicas: DSNs("postgres://127.0.0.1:1/none?sslmode=disable"), Probe: patient, Pool: Pool{Min: -1}, Logger: quiet()})
	must(t, r.Ready(deadline(t)))
	for _, n := range r.Nodes() {
		if !n.Watched || n.Up != n.Primary {
			t.Errorf("with a replica: %+v", n)
		}
	}
}

func TestEachReasonIsDocumented(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("stats.go")
	must(t, err)
	help := strings.Split(strings.TrimSuffix(metricDecisions.Help[strings.Index(metricDecisions.Help, ": ")+2:], "."), ", ")
	for why := range numReasons {
		name := why.String()
		if name == "" {
			t.Errorf("reason %d has no name", why)
		}
		if n := strings.Count(string(src), "\t//   - "+name+": "); n != 1 {
			t.Errorf("%s: documented %d times at NodeStatus.Decisions", name, n)
		}
		if !slices.Contains(help, name) {
			t.Errorf("%s is missing in %q", name, metricDecisions.Help)
		}
	}
}

package resolver

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestMeterTellsEachNode(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	recovering(t, g.db.WithContext(inScope(deadline(t), "read")))
	must(t, g.db.Create(&item{N: 1}).Error)
	h, err := hook.Attach(g.db)
	must(t, err)
	got := map[string]float64{}
	h.Meter(func(m *hook.Metric, v float64, labels ...string) {
		if len(labels) != len(m.Labels) {
			t.Errorf("%s: labels %v for %v", m.Name, labels, m.Labels)
		}
		if m.Counter != strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%s: counter %v", m.Name, m.Counter)
		}
		key := m.Name + "/" + strings.Join(labels, "/")
		if _, twice := got[key]; twice {
			t.Errorf("%s was told twice", key)
		}
		got[key] = v
	})
	for _, n := range []string{"primary", "replica1", "replica2"} {
		for _, m := range []string{"node_up", "node_in_flight", "node_latency_seconds", "node_ejections_total", "node_probes_total", "node_probe_errors_total",
			"node_connection_errors_total", "pool_max_connections", "pool_in_use_connections", "pool_idle_connections", "pool_waits_total", "pool_wait_seconds_total"} {
			if _, ok := got[m+"/"+n]; !ok {
				t.Errorf("%s of %s is not told", m, n)
			}
		}
		if got["node_up/"+n] != 1 || got["pool_max_connections/"+n] != 8 || got["node_probes_total/"+n] == 0 || got["node_in_flight/"+n] != 0 {
			t.Errorf("%s: %v", n, got)
		}
	}
	if _, ok := got["replica_lag_seconds/replica1"]; !ok {
		t.Error("the lag is not told")
	}
	if got["routing_decisions_total/primary/transaction"] != 1 || got["routing_decisions_total/replica1/replica"]+got["routing_decisions_total/replica2/replica"] != 1 {
		t.Errorf("decisions: %v", got)
	}
}

// safeBuffer may be written from several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestEachChangeOfStateIsOneLine(t *testing.T) {
	t.Parallel()
	var out safeBuffer
	c := testbed.SharedCluster(t)
	proxy := testbed.NewProxy(t, c.Replica(0).Addr())
	g := newRig(t, c, func(cfg *Config) {
		cfg.Name = "shop"
		cfg.Replicas = DSNs(strings.Replace(cfg.Replicas[0].DSN, c.Replica(0).Addr(), proxy.Addr(), 1))
		cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	})
	g.allInUse()
	proxy.Cut()
	eventually(t, "the ejection", func() bool { return !g.node("replica1").Up })
	before := g.node("replica1").ProbeErrors
	eventually(t, "more failing probes", func() bool { return g.node("replica1").ProbeErrors > before+3 })
	must(t, proxy.Restore())
	eventually(t, "the return", func() bool { return g.node("replica1").Up })
	must(t, g.r.Close())
	var lines []string
	for _, l := range strings.Split(out.String(), "\n") {
		if strings.Contains(l, "node=replica1") {
			lines = append(lines, l)
		}
	}
	if len(lines) != 3 || !strings.Contains(lines[0], "in rotation") || !strings.Contains(lines[1], "out of rotation") ||
		!strings.Contains(lines[1], "db=shop") || !(strings.Contains(lines[1], `why="no connection"`) || strings.Contains(lines[1], `why="connection refused"`)) || !strings.Contains(lines[2], "in rotation") {
		t.Errorf("lines:\n%s", strings.Join(lines, "\n"))
	}
}

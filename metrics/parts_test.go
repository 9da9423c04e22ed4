package metrics

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gorminfra/infra/internal/hook"
)

// emits is a source that emits what the function does.
type emits func(emit func(m *hook.Metric, value float64, labels ...string))

func (e emits) Meter(emit func(m *hook.Metric, value float64, labels ...string)) { e(emit) }

// exported is what a Registry gives of a source, and how many were dropped.
func exported(t *testing.T, name string, from source) (*prometheus.Registry, *atomic.Uint64) {
	t.Helper()
	var dropped atomic.Uint64
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newPartsCollector(name, from, &dropped))
	return reg, &dropped
}

var (
	hits = &hook.Metric{Name: "cache_hits_total", Help: "Hits.", Counter: true, Labels: []string{"layer"}}
	lag  = &hook.Metric{Name: "replica_lag_seconds", Help: "Lag.", Labels: []string{"node"}}
	open = &hook.Metric{Name: "db_client_connection_count", Help: "Connections."}
)

func TestPartsNumbersAreReadAtEachScrape(t *testing.T) {
	t.Parallel()
	n := 0.0
	reg, dropped := exported(t, "shop", emits(func(emit func(*hook.Metric, float64, ...string)) {
		n++
		emit(hits, n, "l1")
		emit(hits, 10*n, "l2")
		emit(lag, 0.25, "r1")
		emit(open, 3)
	}))
	for _, values := range []string{"1 10", "2 20"} {
		l1, l2, _ := strings.Cut(values, " ")
		err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP db_client_connection_count Connections.
# TYPE db_client_connection_count gauge
db_client_connection_count{db="shop"} 3
# HELP infra_cache_hits_total Hits.
# TYPE infra_cache_hits_total counter
infra_cache_hits_total{db="shop",layer="l1"} `+l1+`
infra_cache_hits_total{db="shop",layer="l2"} `+l2+`
# HELP infra_replica_lag_seconds Lag.
# TYPE infra_replica_lag_seconds gauge
infra_replica_lag_seconds{db="shop",node="r1"} 0.25
`))
		if err != nil {
			t.Error(err)
		}
	}
	if n := dropped.Load(); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

func TestNumberThatDoesNotFitDoesNotCostTheScrape(t *testing.T) {
	t.Parallel()
	bad := []struct {
		name   string
		metric *hook.Metric
		labels []string
	}{
		{"too few labels", hits, nil},
		{"too many labels", hits, []string{"l1", "x"}},
		{"the same series again", hits, []string{"l1"}},
		{"the same after mending the label", lag, []string{"a\xfe"}},
		{"another help under a name", &hook.Metric{Name: hits.Name, Help: "Other.", Counter: true, Labels: hits.Labels}, []string{"l2"}},
		{"another type under a name", &hook.Metric{Name: hits.Name, Help: hits.Help, Labels: hits.Labels}, []string{"l2"}},
		{"other labels under a name", &hook.Metric{Name: hits.Name, Help: hits.Help, Counter: true}, nil},
		{"our own name", &hook.Metric{Name: statementsName, Help: "Ours.", Counter: true}, nil},
		{"our own label", &hook.Metric{Name: "x", Help: "X.", Labels: []string{"db"}}, []string{"y"}},
		{"no metric's name", &hook.Metric{Name: "\xff", Help: "X."}, nil},
	}
	for _, tt := range bad {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg, dropped := exported(t, "shop", emits(func(emit func(*hook.Metric, float64, ...string)) {
				emit(hits, 1, "l1")
				emit(lag, 1, "a\xff")
				emit(tt.metric, 9, tt.labels...)
				emit(open, 1)
			}))
			reg.MustRegister(recorderFor(Config{Name: "shop"}))
			for range 2 {
				n, err := testutil.GatherAndCount(reg, "infra_cache_hits_total", "infra_replica_lag_seconds", "db_client_connection_count")
				if err != nil || n != 3 {
					t.Fatalf("%d metrics, %v", n, err)
				}
			}
			if n := dropped.Load(); n != 2 {
				t.Errorf("%d dropped in two scrapes, want 2", n)
			}
		})
	}
}

func TestOneMetricDeclaredTwiceIsOne(t *testing.T) {
	t.Parallel()
	twin := *hits
	reg, dropped := exported(t, "", emits(func(emit func(*hook.Metric, float64, ...string)) {
		emit(hits, 1, "l1")
		emit(&twin, 2, "l2")
	}))
	if n, err := testutil.GatherAndCount(reg, "infra_cache_hits_total"); n != 2 || err != nil || dropped.Load() != 0 {
		t.Errorf("%d series, %d dropped, %v", n, dropped.Load(), err)
	}
}

func TestSilencedPartsExportNothing(t *testing.T) {
	t.Parallel()
	var dropped atomic.Uint64
	c := newPartsCollector("", emits(func(emit func(*hook.Metric, float64, ...string)) { emit(open, 1) }), &dropped)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := reg.Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	c.silence()
	if n, err := testutil.GatherAndCount(reg); n != 0 || err != nil {
		t.Errorf("%d metrics, %v", n, err)
	}
	wg.Wait()
}

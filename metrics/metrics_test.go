package metrics_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/metrics"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// openNothing opens a *gorm.DB over a server that nobody needs to run.
func openNothing(t testing.TB) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(postgres.New(postgres.Config{DSN: "host=127.0.0.1 port=1 connect_timeout=1"}),
		&gorm.Config{DisableAutomaticPing: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	return db
}

func use(t testing.TB, cfg metrics.Config) *metrics.Metrics {
	t.Helper()
	m := metrics.New(cfg)
	if err := openNothing(t).Use(m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func count(t testing.TB, g prometheus.Gatherer, names ...string) int {
	t.Helper()
	n, err := testutil.GatherAndCount(g, names...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestValidateReportsEveryFault(t *testing.T) {
	t.Parallel()
	cfg := metrics.Config{Name: "\xff", Buckets: []float64{1, 1, math.NaN()}, MaxTables: -1, MaxRoutes: -2}
	err := openNothing(t).Use(metrics.New(cfg))
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`metrics: Name is "\xff": must be valid UTF-8`,
		`metrics: Buckets[1] is 1: must be above the one before it`,
		`metrics: Buckets[2] is NaN: must be a finite number of seconds`,
		`metrics: MaxTables is -1: must not be negative`,
		`metrics: MaxRoutes is -2: must not be negative`,
	}
	if got := strings.Split(err.Error(), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if err := (metrics.Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
}

func TestWithoutRegistererNothingIsInstalled(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	for name, cfg := range map[string]metrics.Config{"zero": {}, "disabled": {Registerer: reg, Disabled: true}} {
		db := openNothing(t)
		m := metrics.New(cfg)
		if err := db.Use(m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, ok := db.Plugins["infra:hook"]; ok {
			t.Errorf("%s: the hook layer is installed", name)
		}
		m.ObserveRequest("GET /", 1, 200)
		if st := m.Stats(); st != (metrics.Stats{}) {
			t.Errorf("%s: %+v", name, st)
		}
		if err := m.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := count(t, reg); n != 0 {
		t.Errorf("%d metrics on a Registerer of a disabled plugin", n)
	}
}

func TestTwoNamesShareARegisterer(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	use(t, metrics.Config{Registerer: reg, Name: "shop"})
	use(t, metrics.Config{Registerer: reg, Name: "billing"})
	if n := count(t, reg, "infra_statement_retries_total"); n != 2 {
		t.Errorf("%d series, want one for each name", n)
	}
}

func TestSameNameTwiceIsAnErrorThatNamesTheField(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	first := use(t, metrics.Config{Registerer: reg})
	second := metrics.New(metrics.Config{Registerer: reg})
	err := openNothing(t).Use(second)
	want := `metrics: Name is "default": must differ from that of every other plugin on the same Registerer`
	if err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	// The first one is untouched by the second's failure and its Close.
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	first.ObserveRequest("GET /", 1, 200)
	if n := count(t, reg, "infra_request_duration_seconds"); n != 1 {
		t.Errorf("%d request histograms after the failure, want 1", n)
	}
}

func TestForeignMetricOfOurNameIsAnErrorThatNamesTheWayOut(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "infra_statements_total", Help: "Another."}, []string{"x"}))
	err := openNothing(t).Use(metrics.New(metrics.Config{Registerer: reg}))
	if err == nil || !strings.Contains(err.Error(), "WrapRegistererWithPrefix") {
		t.Fatalf("got %v", err)
	}
	use(t, metrics.Config{Registerer: prometheus.WrapRegistererWithPrefix("shop_", reg)})
	if n := count(t, reg, "shop_infra_statement_retries_total"); n != 1 {
		t.Errorf("%d series under the prefix, want 1", n)
	}
}

func TestCloseUnregistersAndTheNameIsFreeAgain(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	for range 3 {
		m := metrics.New(metrics.Config{Registerer: reg})
		if err := openNothing(t).Use(m); err != nil {
			t.Fatal(err)
		}
		m.ObserveRequest("GET /", 1, 200)
		if count(t, reg) == 0 {
			t.Fatal("nothing is exported")
		}
		if err := errors.Join(m.Close(), m.Close()); err != nil {
			t.Fatal(err)
		}
		m.ObserveRequest("GET /", 1, 200)
		if n := count(t, reg); n != 0 {
			t.Fatalf("%d metrics after Close", n)
		}
		if st := m.Stats(); st != (metrics.Stats{}) {
			t.Fatalf("recorded after Close: %+v", st)
		}
	}
}

func TestOnePluginServesOneDB(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]metrics.Config{"zero": {}, "exporting": {Registerer: prometheus.NewRegistry()}} {
		m := metrics.New(cfg)
		if err := openNothing(t).Use(m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := openNothing(t).Use(m); err == nil || !strings.Contains(err.Error(), "another *gorm.DB") {
			t.Errorf("%s: a second *gorm.DB: %v", name, err)
		}
		_ = m.Close()
		if err := openNothing(t).Use(m); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s: after Close: %v", name, err)
		}
	}
}

package infra_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestNumbersOfAllPartsAreExportedUnderGoodNames(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	cfg := s.everything(t)
	reg := prometheus.NewPedanticRegistry()
	cfg.Metrics.Registerer = reg
	p := use(t, db, cfg)

	ctx, scope := p.Begin(deadline(t), "job")
	check(t, db.WithContext(ctx).Create(&Product{Name: "new"}).Error)
	for range 2 {
		check(t, db.WithContext(ctx).First(&Product{}, 1).Error)
	}
	check(t, db.WithContext(ctx).Exec("SELECT pg_sleep(0.11)").Error)
	scope.End()

	eventually(t, "the lag of the replicas is known", func() bool {
		n, err := testutil.GatherAndCount(reg, "infra_replica_lag_seconds")
		return err == nil && n == 2
	})
	for _, name := range []string{
		"db_client_operation_duration_seconds", "infra_statements_total",
		"infra_routing_decisions_total", "infra_pool_in_use_connections",
		"infra_cache_hits_total", "infra_limit_admitted_total",
		"infra_nplusone_scopes_total", "infra_slow_statements_total",
	} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n == 0 {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	check(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP infra_metrics_dropped_total Numbers that could not be exported.
# TYPE infra_metrics_dropped_total counter
infra_metrics_dropped_total{db="`+s.name+`"} 0
`), "infra_metrics_dropped_total"))
}

package metrics_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/metrics"
)

func Example() {
	db, err := gorm.Open(postgres.Open("host=localhost dbname=shop"), &gorm.Config{DisableAutomaticPing: true})
	if err != nil {
		panic(err)
	}
	if pool, err := db.DB(); err == nil {
		defer pool.Close()
	}

	reg := prometheus.NewRegistry() // or prometheus.DefaultRegisterer
	m := metrics.New(metrics.Config{Registerer: reg, Name: "shop"})
	if err := db.Use(m); err != nil {
		panic(err)
	}
	defer m.Close()

	m.ObserveRequest("GET /orders/{id}", 20*time.Millisecond, 200) // the middleware does it

	n, err := testutil.GatherAndCount(reg, "infra_request_duration_seconds")
	fmt.Println(n, err)

	err = testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP infra_statement_retries_total Attempts of statements after the first.
# TYPE infra_statement_retries_total counter
infra_statement_retries_total{db="shop"} 0
`), "infra_statement_retries_total")
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// <nil>
}

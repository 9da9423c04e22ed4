package metrics_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/metrics"
)

type customer struct {
	ID     int64
	Name   string `gorm:"unique"`
	Orders []order
}

type order struct {
	ID         int64
	CustomerID int64
}

// openPostgres opens a new database with the two tables.
func openPostgres(t testing.TB, cfg *gorm.Config) *gorm.DB {
	t.Helper()
	c := testbed.SharedCluster(t)
	cfg.Logger = logger.Discard
	db, err := gorm.Open(postgres.Open(c.Primary().DSN(c.NewDatabase(t))), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	if err := db.AutoMigrate(&customer{}, &order{}); err != nil {
		t.Fatal(err)
	}
	return db
}

// scrape returns the lines that /metrics answers with.
func scrape(t testing.TB, reg *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("GET /metrics: %d\n%s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantLines(t testing.TB, got string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains("\n"+got, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(regexp.MustCompile(`(?m)^(.*_bucket|.*_sum|#).*\n`).ReplaceAllString(got, ""))
	}
}

func duration(operation, outcome, table string, n int) string {
	return fmt.Sprintf(`db_client_operation_duration_seconds_count{db="shop",node="primary",operation=%q,outcome=%q,table=%q} %d`, operation, outcome, table, n)
}

func TestStatementsOnPostgresShowInTheScrape(t *testing.T) {
	t.Parallel()
	db := openPostgres(t, &gorm.Config{TranslateError: true})
	reg := prometheus.NewPedanticRegistry()
	m := metrics.New(metrics.Config{Registerer: reg, Name: "shop"})
	if err := db.Use(m); err != nil {
		t.Fatal(err)
	}
	defer m.Close()

	ada := customer{Name: "ada", Orders: []order{{}, {}}}
	if err := db.Create(&ada).Error; err != nil {
		t.Fatal(err)
	}
	var all []customer
	if err := db.Preload("Orders").Find(&all).Error; err != nil || len(all) != 1 || len(all[0].Orders) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	if err := db.Table("customers AS c").Find(&all).Error; err != nil {
		t.Fatal(err)
	}
	if err := db.First(&customer{}, 99).Error; err == nil {
		t.Fatal("found what is not there")
	}
	if err := db.Create(&customer{Name: "ada"}).Error; err == nil {
		t.Fatal("no unique violation")
	}
	if err := db.Exec("UPDATE nowhere SET x = 1").Error; err == nil {
		t.Fatal("updated what is not there")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := db.WithContext(ctx).Exec("SELECT pg_sleep(10)").Error; err == nil {
		t.Fatal("slept")
	}
	rows, err := db.Model(&order{}).Rows()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if sql := db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Find(&all) }); sql == "" {
		t.Fatal("no SQL")
	}
	m.ObserveRequest("GET /orders/{id}", 20*time.Millisecond, 200)

	got := scrape(t, reg)
	wantLines(t, got,
		duration("insert", "database", "customers", 1),
		duration("insert", "database", "orders", 1),
		duration("select", "database", "customers", 3), // Find, the alias, and First that found none
		duration("select", "database", "orders", 2),    // the preload and the Rows
		duration("insert", "error", "customers", 1),
		duration("update", "error", "nowhere", 1),
		duration("select", "error", "", 1),
		`infra_statements_total{db="shop",outcome="database"} 7`,
		`infra_statements_total{db="shop",outcome="error"} 3`,
		`infra_statement_errors_total{class="constraint",db="shop"} 1`,
		`infra_statement_errors_total{class="statement",db="shop"} 1`,
		`infra_statement_errors_total{class="timeout",db="shop"} 1`,
		`infra_statement_errors_total{class="other",db="shop"} 0`,
		`infra_request_duration_seconds_bucket{code="200",db="shop",route="GET /orders/{id}",le="0.025"} 1`,
		`infra_metrics_dropped_total{db="shop"} 0`,
	)
	if strings.Contains(got, "ada") || strings.Contains(got, "pg_sleep") {
		t.Error("a value or a text is in a label")
	}
	if st := m.Stats(); st.Database != 7 || st.Errors != 3 || st.Tables != 4 || st.Routes != 1 {
		t.Errorf("%+v", st)
	}
}

// gate refuses all writes and emits a number of its own.
type gate struct{}

var refusedByGate = &hook.Metric{Name: "gate_asked_total", Help: "Questions.", Counter: true}

func (gate) Gate(_ context.Context, r *hook.Record) error {
	if r.Chain == hook.Create {
		return fmt.Errorf("no")
	}
	return nil
}

func (gate) Meter(emit func(m *hook.Metric, value float64, labels ...string)) { emit(refusedByGate, 1) }

func TestRefusedStatementIsCountedWithoutADuration(t *testing.T) {
	t.Parallel()
	db := openPostgres(t, &gorm.Config{})
	reg := prometheus.NewPedanticRegistry()
	m := metrics.New(metrics.Config{Registerer: reg})
	if err := db.Use(m); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	remove, err := hub.Register(gate{}) // after us: parts are read whenever they came
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	if err := db.Create(&order{}).Error; err == nil || err.Error() != "no" {
		t.Fatalf("not refused: %v", err)
	}
	got := scrape(t, reg)
	wantLines(t, got,
		`infra_statements_total{db="default",outcome="refused"} 1`,
		`infra_statements_total{db="default",outcome="error"} 0`,
		`infra_gate_asked_total{db="default"} 1`,
	)
	if strings.Contains(got, "db_client_operation_duration_seconds") {
		t.Error("a refused statement has a duration")
	}
}

// BenchmarkFirst is a statement on Postgres, with and without metrics.
func BenchmarkFirst(b *testing.B) {
	for _, name := range []string{"bare", "hook layer", "metrics"} {
		b.Run(name, func(b *testing.B) {
			db := openPostgres(b, &gorm.Config{})
			switch name {
			case "hook layer":
				if _, err := hook.Attach(db); err != nil {
					b.Fatal(err)
				}
			case "metrics":
				m := metrics.New(metrics.Config{Registerer: prometheus.NewRegistry()})
				if err := db.Use(m); err != nil {
					b.Fatal(err)
				}
				defer m.Close()
			}
			if err := db.Create(&customer{Name: "ada", Orders: []order{{}}}).Error; err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				var o order
				if err := db.First(&o, 1).Error; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

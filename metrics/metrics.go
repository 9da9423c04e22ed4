// Package metrics exports to Prometheus what the plugin knows: each statement's
// duration and outcome, each HTTP request's duration, and the numbers that the
// other parts keep about themselves, which are read when somebody scrapes.
//
//	m := metrics.New(metrics.Config{Registerer: prometheus.DefaultRegisterer, Name: "shop"})
//	if err := db.Use(m); err != nil { … }
//	defer m.Close()
//
// It opens no port, starts no goroutine, and never labels by user, SQL or raw
// path. The names:
//
//	db_client_operation_duration_seconds   histogram by operation, table, outcome, node (OpenTelemetry's db.client.operation.duration)
//	infra_statements_total                 by outcome
//	infra_statement_errors_total           by class
//	infra_statement_retries_total
//	infra_statement_wait_seconds_total
//	infra_request_duration_seconds         histogram by route, code
//	infra_metrics_dropped_total
//	infra_…                                what the other parts emit
//
// Each carries the label db, which is [Config.Name].
package metrics

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics is the plugin's part for Prometheus, a gorm.Plugin of its own. All
// its methods are safe for concurrent use.
type Metrics struct {
	cfg Config

	mu     sync.Mutex // guards the following three
	used   bool
	closed bool
	stop   []func() // undoes Initialize, last first

	live atomic.Pointer[recorder] // nil: nothing is recorded
}

// New makes the part. It starts nothing; db.Use does, and reports what is wrong
// with cfg.
func New(cfg Config) *Metrics { return &Metrics{cfg: cfg.clone()} }

// ObserveRequest records an HTTP request of that route, which took d and was
// answered with the status code. A route is a pattern ("GET /orders/{id}"),
// never a path; of more than [Config.MaxRoutes] the rest is "other". It does
// nothing before db.Use and after Close.
func (m *Metrics) ObserveRequest(route string, d time.Duration, code int) {
	if rec := m.live.Load(); rec != nil {
		rec.request(route, d, code)
	}
}

// Stats is a snapshot of what was recorded since the start.
type Stats struct {
	Database   uint64        // statements answered by a database
	L1         uint64        // by the cache in memory
	L2         uint64        // by the cache in Redis
	Shared     uint64        // by another statement's answer
	Errors     uint64        // failed ones; not finding a record is no failure
	Refused    uint64        // refused by a limit
	Background uint64        // run by the plugin itself
	Retries    uint64        // attempts after the first
	Waited     time.Duration // time spent waiting for a flight or a limit
	Tables     int           // tables with a label of their own
	Routes     int           // routes with a label of their own
	Dropped    uint64        // numbers of other parts that could not be exported
}

// Stats returns the numbers. They are not of one instant, and zero while
// nothing is recorded.
func (m *Metrics) Stats() Stats {
	if rec := m.live.Load(); rec != nil {
		return rec.stats()
	}
	return Stats{}
}

// register puts the collectors on the Registerer and returns what takes them
// off again.
func (m *Metrics) register(rec *recorder, parts *partsCollector) (func(), error) {
	reg := m.cfg.Registerer
	if err := reg.Register(rec); err != nil {
		if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return nil, fmt.Errorf("metrics: Name is %q: must differ from that of every other plugin on the same Registerer", m.cfg.Name)
		}
		return nil, fmt.Errorf("metrics: Registerer: it holds other metrics of our names "+
			"(prometheus.WrapRegistererWithPrefix gives ours a prefix): %w", err)
	}
	if err := reg.Register(parts); err != nil {
		reg.Unregister(rec)
		return nil, fmt.Errorf("metrics: Registerer: %w", err)
	}
	return func() {
		parts.silence()
		reg.Unregister(parts) // a Registerer may be able to; Prometheus' own is not
		reg.Unregister(rec)
	}, nil
}

// Close takes the metrics off the Registerer and stops recording. It waits for a
// scrape that is under way, and may be called more than once.
func (m *Metrics) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.live.Store(nil)
	for i := len(m.stop) - 1; i >= 0; i-- {
		m.stop[i]()
	}
	m.stop = nil
	return nil
}

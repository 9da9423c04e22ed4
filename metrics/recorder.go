package metrics

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gorminfra/infra/internal/sqltext"
)

// maxNodes bounds the nodes with a label of their own: clusters have fewer, but
// nodes can come and go under new names for as long as the process lives.
const maxNodes = 64

const unreadable = sqltext.Unknown

// outcome is how a statement ended.
type outcome uint8

const (
	database outcome = iota
	l1
	l2
	shared
	failed
	refused
	background
	outcomeCount
)

var outcomeNames = [outcomeCount]string{"database", "l1", "l2", "shared", "error", "refused", "background"}

// statement is what is recorded of one statement.
type statement struct {
	operation sqltext.Operation
	outcome   outcome
	class     class
	table     string
	node      string
	duration  time.Duration
	waited    time.Duration
	retries   int
}

// recorder counts. What is known by now is found without a lock and without an
// allocation.
type recorder struct {
	operations *prometheus.HistogramVec
	requests   *prometheus.HistogramVec
	descs      descs

	statements [outcomeCount]atomic.Uint64
	errors     [classCount]atomic.Uint64
	retries    atomic.Uint64
	waited     atomic.Int64 // nanoseconds
	dropped    atomic.Uint64

	nodes  *named[string]
	tables *named[*tableSeries]
	routes *named[*routeSeries]
}

// tableSeries are the histograms of one table, routeSeries those of one route.
type (
	tableSeries struct {
		label  string
		series grown[seriesKey, prometheus.Observer]
	}
	seriesKey struct {
		operation sqltext.Operation
		outcome   outcome
		node      string
	}
	routeSeries struct {
		label  string
		series grown[int, prometheus.Observer]
	}
)

func newRecorder(cfg Config) *recorder {
	constant := prometheus.Labels{"db": cfg.Name}
	return &recorder{
		operations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:        fullName(operationsName),
			Help:        "Duration of statements, without their preloads, hooks and commit.",
			Buckets:     cfg.Buckets,
			ConstLabels: constant,
		}, []string{"operation", "table", "outcome", "node"}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:        fullName(requestsName),
			Help:        "Duration of HTTP requests that went through the middleware.",
			Buckets:     requestBuckets,
			ConstLabels: constant,
		}, []string{"route", "code"}),
		descs:  newDescs(constant),
		nodes:  newNamed(maxNodes, func(label string) string { return label }),
		tables: newNamed(cfg.MaxTables, func(label string) *tableSeries { return &tableSeries{label: label} }),
		routes: newNamed(cfg.MaxRoutes, func(label string) *routeSeries { return &routeSeries{label: label} }),
	}
}

// statement records one statement. A refused one has no duration: it would make
// the database look quick.
func (rec *recorder) statement(s *statement) {
	rec.statements[s.outcome].Add(1)
	if s.class != classNone {
		rec.errors[s.class].Add(1)
	}
	if s.retries > 0 {
		rec.retries.Add(uint64(s.retries))
	}
	if s.waited > 0 {
		rec.waited.Add(int64(s.waited))
	}
	if s.outcome == refused {
		return
	}
	t := rec.tables.of(s.table)
	key := seriesKey{s.operation, s.outcome, s.node}
	o, ok := t.series.get(key)
	if !ok {
		o = rec.newOperation(t, key)
	}
	o.Observe(s.duration.Seconds())
}

// newOperation makes the histogram of key, whose node is known by its label
// from here on, so that nodes beyond the bound share one.
func (rec *recorder) newOperation(t *tableSeries, key seriesKey) prometheus.Observer {
	label := rec.nodes.of(key.node)
	if label == other {
		key.node = other
		if o, ok := t.series.get(key); ok {
			return o
		}
	}
	key.node = strings.Clone(key.node)
	o, _ := t.series.add(key, unbounded, func() prometheus.Observer {
		return rec.operations.WithLabelValues(key.operation.String(), t.label, outcomeNames[key.outcome], label)
	})
	return o
}

func (rec *recorder) request(route string, d time.Duration, code int) {
	r := rec.routes.of(route)
	if code < 100 || code > 999 { // what net/http would not send
		code = 0
	}
	o, ok := r.series.get(code)
	if !ok {
		o = rec.newRequest(r, code)
	}
	o.Observe(d.Seconds())
}

func (rec *recorder) newRequest(r *routeSeries, code int) prometheus.Observer {
	label := other
	if code != 0 {
		label = strconv.Itoa(code)
	}
	o, _ := r.series.add(code, unbounded, func() prometheus.Observer {
		return rec.requests.WithLabelValues(r.label, label)
	})
	return o
}

func (rec *recorder) stats() Stats {
	return Stats{
		Database:   rec.statements[database].Load(),
		L1:         rec.statements[l1].Load(),
		L2:         rec.statements[l2].Load(),
		Shared:     rec.statements[shared].Load(),
		Errors:     rec.statements[failed].Load(),
		Refused:    rec.statements[refused].Load(),
		Background: rec.statements[background].Load(),
		Retries:    rec.retries.Load(),
		Waited:     time.Duration(rec.waited.Load()),
		Tables:     len(rec.tables.load()),
		Routes:     len(rec.routes.load()),
		Dropped:    rec.dropped.Load(),
	}
}

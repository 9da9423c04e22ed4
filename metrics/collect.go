package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace begins all names but those that OpenTelemetry has given.
const (
	namespace     = "infra_"
	openTelemetry = "db_client_"
)

func fullName(name string) string {
	if strings.HasPrefix(name, openTelemetry) {
		return name
	}
	return namespace + name
}

// The names that are ours.
const (
	operationsName = "db_client_operation_duration_seconds"
	requestsName   = "request_duration_seconds"
	statementsName = "statements_total"
	errorsName     = "statement_errors_total"
	retriesName    = "statement_retries_total"
	waitedName     = "statement_wait_seconds_total"
	droppedName    = "metrics_dropped_total"
)

var ownNames = []string{operationsName, requestsName, statementsName, errorsName, retriesName, waitedName, droppedName}

// descs describe the recorder's own counters.
type descs struct {
	statements, errors, retries, waited, dropped *prometheus.Desc
}

func newDescs(constant prometheus.Labels) descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(fullName(name), help, labels, constant)
	}
	return descs{
		statements: desc(statementsName, "Statements by where their answer came from.", "outcome"),
		errors:     desc(errorsName, "Failed statements by the kind of error.", "class"),
		retries:    desc(retriesName, "Attempts of statements after the first."),
		waited:     desc(waitedName, "Time that statements waited for another one's answer or for a limit."),
		dropped:    desc(droppedName, "Numbers that could not be exported."),
	}
}

var _ prometheus.Collector = (*recorder)(nil)

// Describe implements prometheus.Collector.
func (rec *recorder) Describe(ch chan<- *prometheus.Desc) {
	rec.operations.Describe(ch)
	rec.requests.Describe(ch)
	d := rec.descs
	for _, desc := range []*prometheus.Desc{d.statements, d.errors, d.retries, d.waited, d.dropped} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. All outcomes and classes are there
// from the start, as rate() wants it.
func (rec *recorder) Collect(ch chan<- prometheus.Metric) {
	rec.operations.Collect(ch)
	rec.requests.Collect(ch)
	counter := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, v, labels...)
	}
	for i := range rec.statements {
		counter(rec.descs.statements, float64(rec.statements[i].Load()), outcomeNames[i])
	}
	for i := classNone + 1; i < classCount; i++ {
		counter(rec.descs.errors, float64(rec.errors[i].Load()), classNames[i])
	}
	counter(rec.descs.retries, float64(rec.retries.Load()))
	counter(rec.descs.waited, float64(rec.waited.Load())/1e9)
	counter(rec.descs.dropped, float64(rec.dropped.Load()))
}

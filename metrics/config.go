package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says where the metrics go. The zero value exports nothing.
type Config struct {
	// Registerer receives the metrics, and loses them again at Close. Nil
	// exports nothing and costs nothing. Where another library exports metrics
	// of the same names, give prometheus.WrapRegistererWithPrefix("x_", reg).
	Registerer prometheus.Registerer
	// Name is the value of the label db: two databases of one process on one
	// Registerer need two names. Default "default".
	Name string

	// Buckets are the upper bounds of the statements' durations in seconds,
	// rising. Default those of OpenTelemetry's db.client.operation.duration:
	// 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10.
	Buckets []float64
	// MaxTables bounds the tables with a label of their own, first come first
	// served; the rest is "other". Default 100.
	MaxTables int
	// MaxRoutes does the same for the routes of HTTP requests. Default 100.
	MaxRoutes int

	// Disabled exports nothing.
	Disabled bool
}

const (
	defaultName   = "default"
	defaultTables = 100
	defaultRoutes = 100
)

var (
	// https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
	operationBuckets = []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10}
	// https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
	requestBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(field string, value any, rule string) {
		errs = append(errs, fmt.Errorf("metrics: %s is %v: %s", field, value, rule))
	}
	if !utf8.ValidString(c.Name) {
		bad("Name", fmt.Sprintf("%q", c.Name), "must be valid UTF-8")
	}
	for i, b := range c.Buckets {
		switch {
		case math.IsNaN(b) || math.IsInf(b, 0):
			bad(fmt.Sprintf("Buckets[%d]", i), b, "must be a finite number of seconds")
		case i > 0 && !(c.Buckets[i-1] < b):
			bad(fmt.Sprintf("Buckets[%d]", i), b, "must be above the one before it")
		}
	}
	if c.MaxTables < 0 {
		bad("MaxTables", c.MaxTables, "must not be negative")
	}
	if c.MaxRoutes < 0 {
		bad("MaxRoutes", c.MaxRoutes, "must not be negative")
	}
	return errors.Join(errs...)
}

func (c Config) clone() Config {
	c.Buckets = slices.Clone(c.Buckets)
	return c
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, defaultName)
	c.MaxTables = cmp.Or(c.MaxTables, defaultTables)
	c.MaxRoutes = cmp.Or(c.MaxRoutes, defaultRoutes)
	if len(c.Buckets) == 0 {
		c.Buckets = slices.Clone(operationBuckets)
	}
	return c
}

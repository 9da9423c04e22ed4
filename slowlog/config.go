package slowlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

// Config says what is slow and what is done with it. The zero value keeps and
// logs the statements of 100 ms and more, without plans.
type Config struct {
	// Name tells the databases of one process apart, in the attribute db of the
	// log lines. Default "default".
	Name string

	// Threshold is the own time (see [Entry.Own]) from which on a statement is
	// slow; a statement that takes exactly that long is. What it waited for, a
	// limit or another's query, does not make it slow. Default 100 ms. Negative:
	// none is, except by PerOperation and PerTable.
	Threshold time.Duration
	// PerOperation are other thresholds by operation, in lower case: "select",
	// "insert", "update", "delete", "ddl" and the like, as in Entry.Operation.
	// Negative: never slow. Zero: the default, as in Threshold.
	PerOperation map[string]time.Duration
	// PerTable are other thresholds by the statement's table, as in Entry.Table
	// ("orders", or "sales.orders" where the text names the schema). They win
	// over PerOperation.
	PerTable map[string]time.Duration

	// Explain lets the plan of slow reads be asked for. Default [Off].
	Explain Mode
	// ExplainEvery is the time for which a shape's plan is not asked for again.
	// Default 10 min, at least 1 s.
	ExplainEvery time.Duration

	// History is the number of entries kept, and of shapes. Default 1000.
	History int
	// MaxBytes bounds what entries, shapes and plans occupy together. Default
	// 8 MiB, at least 64 KiB.
	MaxBytes int
	// Queue is the number of entries that may wait for Logger and Sink. One that
	// finds it full is kept in the history but neither logged nor sunk, and is
	// counted. Default 256.
	Queue int

	// Logger receives one line at level Warn for each entry, from a goroutine of
	// this package. Default [slog.Default].
	Logger *slog.Logger
	// Sink receives each entry after its line, one at a time, from a goroutine
	// of this package; a panic is caught. ctx ends when Close can wait no longer.
	// Statements run with ctx are not logged themselves, so that a sink may write
	// into a database.
	Sink func(ctx context.Context, e Entry)

	// User finds whom a statement is run for; empty: nobody. Only a hash of it
	// is kept. It runs on the goroutine of the slow statement and must be quick.
	User func(ctx context.Context) string
	// HashKey makes the hashes of users comparable between processes that share
	// it, and nowhere else. Default: a random key, and hashes that can be
	// compared within this process.
	HashKey []byte
	// TraceID finds the trace that a statement belongs to. It runs on the
	// goroutine of the slow statement and must be quick.
	TraceID func(ctx context.Context) string

	// Disabled observes nothing.
	Disabled bool
}

// Mode says whether plans are asked for.
type Mode uint8

const (
	// Off asks for no plan.
	Off Mode = iota
	// Plan asks for the plan with EXPLAIN, which does not run the statement.
	Plan
	// Analyze runs the statement once more with EXPLAIN ANALYZE, where the
	// catalogue shows that nothing but a read can happen; elsewhere, and on other
	// databases than Postgres, it is Plan.
	Analyze
)

func (m Mode) String() string {
	switch m {
	case Off:
		return "off"
	case Plan:
		return "plan"
	case Analyze:
		return "analyze"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

const (
	defaultThreshold    = 100 * time.Millisecond
	defaultExplainEvery = 10 * time.Minute
	minMaxBytes         = 64 << 10
	maxHistory          = 1 << 20
	never               = time.Duration(math.MaxInt64)
)

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "default")
	c.Threshold = cmp.Or(c.Threshold, defaultThreshold)
	c.ExplainEvery = cmp.Or(c.ExplainEvery, defaultExplainEvery)
	c.History = cmp.Or(c.History, 1000)
	c.MaxBytes = cmp.Or(c.MaxBytes, 8<<20)
	c.Queue = cmp.Or(c.Queue, 256)
	c.PerOperation, c.PerTable = maps.Clone(c.PerOperation), maps.Clone(c.PerTable)
	c.HashKey = slices.Clone(c.HashKey)
	return c
}

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	d := c.withDefaults()
	var errs []error
	fault := func(field string, value any, rule string) {
		errs = append(errs, fmt.Errorf("slowlog: %s is %v: %s", field, value, rule))
	}
	if d.Explain > Analyze {
		fault("Explain", d.Explain, "must be Off, Plan or Analyze")
	}
	if d.ExplainEvery < time.Second {
		fault("ExplainEvery", d.ExplainEvery, "must be at least 1s")
	}
	if d.History < 1 || d.History > maxHistory {
		fault("History", d.History, fmt.Sprintf("must be from 1 to %d", maxHistory))
	}
	if d.MaxBytes < minMaxBytes {
		fault("MaxBytes", d.MaxBytes, fmt.Sprintf("must be at least %d", minMaxBytes))
	}
	if d.Queue < 1 || d.Queue > maxHistory {
		fault("Queue", d.Queue, fmt.Sprintf("must be from 1 to %d", maxHistory))
	}
	for _, name := range slices.Sorted(maps.Keys(d.PerOperation)) {
		if _, ok := operationNamed(name); !ok {
			fault(fmt.Sprintf("PerOperation[%q]", name), d.PerOperation[name], "must have an operation such as select, insert, update, delete or ddl as its key")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.PerTable)) {
		if strings.TrimSpace(name) == "" {
			fault(fmt.Sprintf("PerTable[%q]", name), d.PerTable[name], "must have a table's name as its key")
		}
	}
	return errors.Join(errs...)
}

// maxOperations bounds the kinds of sqltext.Operation.
const maxOperations = 64

func operationNamed(name string) (sqltext.Operation, bool) {
	for op := range sqltext.Operation(maxOperations) {
		if op.String() == name && (op == sqltext.Unknown || name != sqltext.Unknown.String()) {
			return op, true
		}
	}
	return 0, false
}

// thresholds decides what is slow.
type thresholds struct {
	lowest  time.Duration // nothing quicker than this is slow
	general time.Duration
	byOp    map[sqltext.Operation]time.Duration
	byTable map[string]time.Duration
}

func newThresholds(c Config) thresholds {
	t := thresholds{general: thresholdOf(c.Threshold)}
	t.lowest = t.general
	for name, d := range c.PerOperation {
		if op, ok := operationNamed(name); ok {
			if t.byOp == nil {
				t.byOp = make(map[sqltext.Operation]time.Duration)
			}
			t.byOp[op] = thresholdOf(d)
			t.lowest = min(t.lowest, t.byOp[op])
		}
	}
	for name, d := range c.PerTable {
		if t.byTable == nil {
			t.byTable = make(map[string]time.Duration)
		}
		t.byTable[name] = thresholdOf(d)
		t.lowest = min(t.lowest, t.byTable[name])
	}
	return t
}

func thresholdOf(d time.Duration) time.Duration {
	if d < 0 {
		return never
	}
	return cmp.Or(d, defaultThreshold)
}

// slow reports whether d is slow for text, which may be nil.
func (t *thresholds) slow(d time.Duration, text *sqltext.Statement) bool {
	if d < t.lowest {
		return false
	}
	limit := t.general
	if text != nil {
		if v, ok := t.byOp[text.Operation]; ok {
			limit = v
		}
		if table, ok := tableOf(text); ok && t.byTable != nil {
			if v, ok := t.byTable[table.String()]; ok {
				limit = v
			} else if v, ok := t.byTable[table.Name]; ok {
				limit = v
			}
		}
	}
	return d >= limit
}

// tableOf is the table that the statement is about: the one written, or the
// first one read. It is taken from the text and not from GORM, whose Table may
// be any expression, with values in it.
func tableOf(text *sqltext.Statement) (sqltext.Table, bool) {
	switch {
	case len(text.Writes) > 0:
		return text.Writes[0], true
	case len(text.Reads) > 0:
		return text.Reads[0], true
	}
	return sqltext.Table{}, false
}

package slowlog

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// Name implements gorm.Plugin.
func (l *Log) Name() string { return "infra:slowlog" }

// Initialize implements gorm.Plugin; db.Use calls it. It does not block.
func (l *Log) Initialize(db *gorm.DB) error {
	if err := l.cfg.Validate(); err != nil {
		return err
	}
	if l.cfg.Disabled {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hub != nil {
		return errors.New("slowlog: the plugin already serves another *gorm.DB: make a second one for it")
	}
	if l.closed {
		return errors.New("slowlog: the plugin has been closed: make a new one")
	}
	hub, err := hook.Attach(db)
	if err != nil {
		return err
	}
	l.dialect = hub.DB().Name()
	if l.cfg.Explain != Off {
		l.planner = plannerOf(l.dialect)
	}
	remove, err := hub.Register(l)
	if err != nil {
		return err
	}
	l.hub, l.remove = hub, remove
	go l.explainLoop()
	go l.reportLoop()
	return nil
}

// WantsCallers lets the call site of a caller's own Rows loop be known, which
// ends elsewhere than it began.
func (l *Log) WantsCallers() bool { return l.limits.lowest < never }

// Observe implements hook.Observer: for a statement that is not slow, one
// comparison.
func (l *Log) Observe(ctx context.Context, r *hook.Record) {
	if own := ownTime(r.Duration, r.Waited); own >= l.limits.lowest {
		l.observeSlow(ctx, r, own)
	}
}

// observeSlow takes a slow statement in, on the goroutine that ran it. A refused
// statement is not slow: it ran nowhere.
func (l *Log) observeSlow(ctx context.Context, r *hook.Record, own time.Duration) {
	if r.Outcome == hook.Refused || r.Text == nil || ctx.Value(ownKey{}) != nil || !l.limits.slow(own, r.Text) {
		return
	}
	defer l.recovered()
	l.count.slow[r.Text.Operation%maxOperations].Add(1)
	e := l.entry(ctx, r)
	l.history.add(&e)
	l.takeIn(e, l.jobOf(r, e))
}

// takeIn hands e to the goroutines, to be explained first when there is a job.
func (l *Log) takeIn(e Entry, j *job) {
	l.intake.RLock()
	defer l.intake.RUnlock()
	if l.closed {
		l.count.unlogged.Add(1)
		return
	}
	if j != nil {
		select {
		case l.explains <- j:
			return // it goes on to its report from there
		default:
			l.history.unclaim(e.Fingerprint)
			l.count.dropped.Add(1)
		}
	}
	l.report(e)
}

func (l *Log) entry(ctx context.Context, r *hook.Record) Entry {
	e := Entry{
		Time: r.Start.Time(), Fingerprint: r.Text.Fingerprint, Shape: shapeOf(r.Text, l.dialect), Operation: r.Text.Operation.String(),
		Duration: r.Duration, Waited: r.Waited, Rows: r.Rows, Error: errorClass(r.Err),
		Outcome: r.Outcome.String(), Background: r.Background, pc: r.Site(),
	}
	if t, ok := tableOf(r.Text); ok {
		e.Table = cut(t.String(), maxLabel)
	}
	if r.Node != nil {
		e.Node = cut(r.Node.Name, maxLabel)
	}
	if r.Scope != nil {
		e.Route = cut(r.Scope.Name(), maxLabel)
	}
	e.User = l.hashUser(l.ask(ctx, l.cfg.User))
	e.TraceID = cut(l.ask(ctx, l.cfg.TraceID), maxLabel)
	return e
}

// ask calls a function of the program, which may panic.
func (l *Log) ask(ctx context.Context, f func(context.Context) string) (s string) {
	if f == nil {
		return ""
	}
	defer l.recovered()
	return f(ctx)
}

func (l *Log) recovered() {
	if recover() != nil {
		l.count.panics.Add(1)
	}
}

// resolve finds the line of the program, which costs a microsecond.
func (e *Entry) resolve() {
	if e.pc != 0 && e.Site == (Site{}) {
		f := hook.SiteFrame(e.pc)
		e.Site = Site{Function: f.Function, File: f.File, Line: f.Line}
	}
}

// shapeOf is the statement without its values. A text that cannot be read has no
// shape: where a literal ends in it is not known. SET takes values that look like
// names, and what stands in double quotes is a value in MySQL always, in SQLite
// where no column has the name.
func shapeOf(text *sqltext.Statement, dialect string) string {
	switch text.Operation {
	case sqltext.Unknown:
		return "(unreadable)"
	case sqltext.Set:
		return "SET ?"
	}
	shape := text.Shape
	if dialect == "mysql" || dialect == "sqlite" {
		shape = maskQuoted(shape)
	}
	return cut(shape, maxShape)
}

// maskQuoted writes "?" for what stands in double quotes.
func maskQuoted(shape string) string {
	if strings.IndexByte(shape, '"') < 0 {
		return shape
	}
	var b strings.Builder
	for i, part := range strings.Split(shape, `"`) {
		if i%2 == 0 {
			b.WriteString(part)
		} else {
			b.WriteByte('?')
		}
	}
	return b.String()
}

// cut shortens s to at most n bytes, without keeping the rest in memory.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n]) + "…"
}

var (
	metricSlow      = &hook.Metric{Name: "slow_statements_total", Help: "Statements slower than their threshold.", Counter: true, Labels: []string{"operation"}}
	metricExplains  = &hook.Metric{Name: "slowlog_explains_total", Help: "Plans of slow statements: done, dropped for want of room, skipped because not certainly a read, failed.", Counter: true, Labels: []string{"result"}}
	metricUnlogged  = &hook.Metric{Name: "slowlog_unlogged_total", Help: "Slow statements that were neither logged nor sunk because the queue was full.", Counter: true}
	metricPanics    = &hook.Metric{Name: "slowlog_panics_total", Help: "Panics of the slow log's logger, sink and functions.", Counter: true}
	metricEntries   = &hook.Metric{Name: "slowlog_history_entries", Help: "Slow statements kept."}
	metricShapes    = &hook.Metric{Name: "slowlog_history_shapes", Help: "Shapes of slow statements kept."}
	metricHistBytes = &hook.Metric{Name: "slowlog_history_bytes", Help: "Memory that the kept slow statements and plans occupy."}
)

// Meter implements hook.Meter.
func (l *Log) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	for i := range l.count.slow {
		if n := l.count.slow[i].Load(); n > 0 {
			emit(metricSlow, float64(n), sqltext.Operation(i).String()) //nolint:gosec // below maxOperations
		}
	}
	s := l.Stats()
	emit(metricExplains, float64(s.Explained), "done")
	emit(metricExplains, float64(s.ExplainDropped), "dropped")
	emit(metricExplains, float64(s.ExplainSkipped), "skipped")
	emit(metricExplains, float64(s.ExplainFailed), "failed")
	emit(metricUnlogged, float64(s.Unlogged))
	emit(metricPanics, float64(s.Panics))
	emit(metricEntries, float64(s.Entries))
	emit(metricShapes, float64(s.Shapes))
	emit(metricHistBytes, float64(s.Bytes))
}

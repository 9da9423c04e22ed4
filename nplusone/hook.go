package nplusone

import (
	"context"
	"database/sql"
	"errors"
	"reflect"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// Name implements gorm.Plugin.
func (d *Detector) Name() string { return "infra:nplusone" }

// Initialize implements gorm.Plugin. A Detector serves one *gorm.DB.
func (d *Detector) Initialize(db *gorm.DB) error {
	if err := d.cfg.Validate(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return errors.New("nplusone: this plugin is closed: make a new one")
	case d.used:
		return errors.New("nplusone: this plugin is already used on a *gorm.DB: make another one")
	}
	if !d.cfg.Disabled {
		hub, err := hook.Attach(db)
		if err != nil {
			return err
		}
		if d.remove, err = hub.Register(observer{d}); err != nil {
			return err
		}
	}
	d.used = true
	return nil
}

// Close takes the detector off the *gorm.DB. What scopes hold can still be
// reported. It may be called more than once and never fails.
func (d *Detector) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.remove != nil {
		d.remove()
	}
	return nil
}

// observer is what the hook layer sees of a Detector.
type observer struct{ *Detector }

var (
	_ hook.Observer = observer{}
	_ hook.Meter    = observer{}
)

// WantsCallers lets the hook layer keep the stack of a caller's own loop over
// Rows, whose record is finished elsewhere.
func (o observer) WantsCallers() bool { return o.cfg.Development || underTest.Load() }

// Observe implements hook.Observer.
func (o observer) Observe(ctx context.Context, r *hook.Record) {
	if r.Scope == nil || r.Background || r.Outcome == hook.Refused || r.Text == nil {
		return
	}
	t := o.tracker(r.Scope)
	if reason, ok := ignoreReason(ctx); ok {
		t.noteIgnored(reason, r.Text, r.Duration)
		return
	}
	e := event{
		text: r.Text, sql: r.SQL, args: r.Args, opaque: r.Chain == hook.Row,
		start: r.Start.Sub(hook.MomentOf(r.Scope.Start())), took: r.Duration, rows: rowsOf(r),
		cached: r.Outcome == hook.L1 || r.Outcome == hook.Shared,
		failed: r.Err != nil && failed(r.Err),
		bulk:   r.Text.Operation == sqltext.Insert && inserted(r) > 1,
	}
	if o.cfg.Development || t.detail {
		e.site, e.samples = siteOfRecord(r), true
	}
	if r.Schema != nil {
		e.model = r.Schema
	}
	if r.Where == hook.InTxn {
		e.txn = uint64(reflect.ValueOf(r.Txn).Pointer()) // which one, without keeping it
	}
	if p := r.Parent; p != nil {
		e.preload = true
		if p.Text != nil { // the parent and its preload have one place
			e.parent = groupKey(p.Text.Fingerprint, e.site, p.Parent != nil)
		}
	}
	t.note(&e)
}

func siteOfRecord(r *hook.Record) *site {
	if r.Chain == hook.Row {
		return siteOf(r.Callers(), hook.Plumbing) // kept when it began
	}
	return siteHere()
}

// failed reports whether the statement did not answer: not finding a record is
// an answer.
func failed(err error) bool {
	return !errors.Is(err, gorm.ErrRecordNotFound) && !errors.Is(err, sql.ErrNoRows)
}

// rowsOf is the number of rows, -1 for those of a caller's own loop.
func rowsOf(r *hook.Record) int64 {
	if r.Chain == hook.Row || r.Chain == hook.Direct {
		return -1
	}
	return r.Rows
}

// inserted is the number of rows that an insert tried to insert. The database
// tells only those that did not conflict.
func inserted(r *hook.Record) int64 {
	if r.Chain == hook.Create {
		if v := r.DB.Statement.ReflectValue; v.IsValid() && (v.Kind() == reflect.Slice || v.Kind() == reflect.Array) {
			return int64(v.Len())
		}
	}
	return r.Rows
}

var (
	findingsTotal = &hook.Metric{Name: "nplusone_findings_total", Help: "Findings in finished scopes, by kind: n_plus_one, duplicate_query, batch_this.", Counter: true, Labels: []string{"kind"}}
	scopesTotal   = &hook.Metric{Name: "nplusone_scopes_total", Help: "Scopes in which a statement was seen.", Counter: true}
	ignoredTotal  = &hook.Metric{Name: "nplusone_ignored_total", Help: "Statements that the program asked to ignore, in finished scopes.", Counter: true}
	droppedTotal  = &hook.Metric{Name: "nplusone_dropped_total", Help: "Statements that were not looked at because their scope had no room.", Counter: true}
)

// Meter implements hook.Meter.
func (o observer) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	st := o.Stats()
	for _, k := range kinds {
		emit(findingsTotal, float64(st.Findings[k]), string(k))
	}
	emit(scopesTotal, float64(st.Scopes))
	emit(ignoredTotal, float64(st.Ignored))
	emit(droppedTotal, float64(st.Dropped))
}

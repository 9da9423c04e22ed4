package cached

import (
	"context"
	"os"
	"syscall"

	"github.com/gorminfra/infra/internal/hook"
)

// trace is what the plugin did for one statement.
type trace struct {
	outcome hook.Outcome
	lookup  hook.Lookup
	node    string
}

func (t *trace) source() source {
	switch {
	case t.outcome == hook.L1:
		return fromL1
	case t.outcome == hook.L2:
		return fromL2
	case t.outcome == hook.Shared:
		return fromShared
	case t.lookup == hook.Miss:
		return fromFill
	}
	return fromDatabase
}

// Keys of a context: where a read's trace goes, and the write that is under way.
type (
	traceKey struct{}
	writeKey struct{}
)

// tracer stands behind the plugin's parts.
type tracer struct{ w *worker }

var (
	_ hook.Observer    = tracer{}
	_ hook.TxnObserver = tracer{}
	_ hook.TxnObserver = forerunner{}
)

// Observe implements hook.Observer.
func (tracer) Observe(ctx context.Context, r *hook.Record) {
	t, ok := ctx.Value(traceKey{}).(*trace)
	if !ok {
		return
	}
	t.outcome, t.lookup = r.Outcome, r.Lookup
	if r.Node != nil {
		t.node = r.Node.Name
	}
}

// Begin implements hook.TxnObserver.
func (tracer) Begin(*hook.Txn) {}

// BeforeCommit implements hook.TxnObserver: the cache has been asked already. It
// logs that the write may happen from now on, and whether Redis knows.
func (t tracer) BeforeCommit(ctx context.Context, _ *hook.Txn) error {
	b, ok := ctx.Value(writeKey{}).(*begun)
	if !ok {
		return nil
	}
	o := op{ID: b.id, Session: b.session, Kind: kindCommitting, Start: b.start, Commit: t.w.clock.Now()}
	if t.w.redisErrors(b.errors) {
		o.Flags |= untold
	}
	t.w.note(&o, nil)
	t.w.dieAt(afterMark)
	return nil
}

// Ended implements hook.TxnObserver.
func (tracer) Ended(*hook.Txn, hook.TxnOutcome) {}

// forerunner stands before the plugin's parts, which do not know yet what it is
// told.
type forerunner struct{ w *worker }

// Begin implements hook.TxnObserver.
func (forerunner) Begin(*hook.Txn) {}

// BeforeCommit implements hook.TxnObserver.
func (f forerunner) BeforeCommit(context.Context, *hook.Txn) error {
	f.w.dieAt(beforeMark)
	return nil
}

// Ended implements hook.TxnObserver.
func (f forerunner) Ended(_ *hook.Txn, outcome hook.TxnOutcome) {
	if outcome == hook.Committed {
		f.w.dieAt(afterCommit)
	}
}

// Points at which a worker can be told to die, by kill -9 from its own hand.
const (
	beforeMark  = "before-mark"
	afterMark   = "after-mark"
	afterCommit = "after-commit"
)

func (w *worker) dieAt(point string) {
	if doom := w.doom.Load(); doom != nil && *doom == point {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // nothing more is to happen
	}
}

// begun is a write under way.
type begun struct {
	id, session uint32
	start       int64
	errors      uint64 // of Redis, until it began
}

// redisErrors reports whether a write that began when there had been so many
// errors of Redis may be one of which it was not told.
func (w *worker) redisErrors(before uint64) bool {
	s := w.plugin.Cache().Stats()
	return s.RedisErrors != before || s.Quarantined > 0 || s.BreakerOpen
}

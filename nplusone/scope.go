package nplusone

import (
	"context"
	"sync/atomic"

	"github.com/gorminfra/infra/internal/scope"
)

// trackers are those of the Detectors that saw a statement of one scope: one
// for each *gorm.DB that the scope works with.
type trackers struct {
	head   atomic.Pointer[tracker]
	detail atomic.Bool
}

var slot = scope.NewSlot(func(*scope.Scope) *trackers { return &trackers{} })

// tracker returns the state of d in s, making it at the first call.
func (d *Detector) tracker(s *scope.Scope) *tracker {
	ts := slot.Get(s)
	for {
		head := ts.head.Load()
		for t := head; t != nil; t = t.next {
			if t.detector == d {
				return t
			}
		}
		t := &tracker{detector: d, scope: s, next: head, detail: ts.detail.Load()}
		if ts.head.CompareAndSwap(head, t) {
			d.stats.scopes.Add(1)
			return t
		}
	}
}

// peek returns the state of d in s, nil when it saw nothing there.
func (d *Detector) peek(s *scope.Scope) *tracker {
	if s == nil {
		return nil
	}
	ts := slot.Peek(s)
	if ts == nil {
		return nil
	}
	for t := ts.head.Load(); t != nil; t = t.next {
		if t.detector == d {
			return t
		}
	}
	return nil
}

// trackersOf returns those of s, first made first.
func trackersOf(s *scope.Scope) []*tracker {
	ts := slot.Peek(s)
	if ts == nil {
		return nil
	}
	var all []*tracker
	for t := ts.head.Load(); t != nil; t = t.next {
		all = append([]*tracker{t}, all...)
	}
	return all
}

// Scope is one request or job that was opened with Begin.
type Scope struct {
	scope  *scope.Scope
	joined bool
}

// Begin opens a scope for a program that uses this package without the plugin
// that contains it: run the statements with the returned context, and call End.
// A scope that ctx already carries is joined; then End reports and leaves the
// rest to whoever opened it.
func Begin(ctx context.Context, name string) (context.Context, *Scope) {
	ctx, s, joined := scope.Begin(ctx, name)
	return ctx, &Scope{s, joined}
}

// End closes the scope, tells of its findings as [Detector.Finish] does, and
// returns the report, of all Detectors that saw its statements. A second call
// returns the report again.
func (s *Scope) End() Report {
	if s.joined {
		return reportOf(s.scope, (*Detector).snapshot)
	}
	s.scope.End()
	return reportOf(s.scope, (*Detector).finish)
}

// Report tells what the scope holds so far.
func (s *Scope) Report() Report { return reportOf(s.scope, (*Detector).snapshot) }

func (d *Detector) snapshot(t *tracker) Report { return t.report(d.cfg.Threshold) }

func reportOf(s *scope.Scope, of func(*Detector, *tracker) Report) Report {
	r := emptyReport(s)
	for i, t := range trackersOf(s) {
		if one := of(t.detector, t); i == 0 {
			r = one
		} else {
			r.add(one)
		}
	}
	return r
}

type ignoreKey struct{}

// Ignore returns a context whose statements are counted but never part of a
// finding. The reason appears in the report; it should say why the loop is
// meant, and may be empty.
func Ignore(ctx context.Context, reason string) context.Context {
	return context.WithValue(ctx, ignoreKey{}, reason)
}

func ignoreReason(ctx context.Context) (string, bool) {
	reason, ok := ctx.Value(ignoreKey{}).(string)
	return reason, ok
}

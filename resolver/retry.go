package resolver

import (
	"context"
	"fmt"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// Retry implements hook.Router.
func (a *router) Retry(ctx context.Context, rec *hook.Record, cause error) *hook.Node {
	failed := a.r.nodeOf(rec.Node)
	if failed == nil {
		return nil
	}
	takeBack(rec)
	r := failed.home
	f := failureOf(cause, true)
	if over(ctx) {
		f = noFailure
	}
	r.blame(failed, f, cause)
	if rec.Access != hook.ReadOnly {
		if n := r.redirect(ctx, rec, failed, f, cause); n != nil {
			return r.again(rec, n)
		}
		return nil
	}
	if f == noFailure && r.live.Load() && !failed.isPrimary() && refusedByStandby(cause) {
		return r.onPrimaryInstead(ctx, rec, cause)
	}
	if f == noFailure && r.live.Load() || f == conflict && failed.isPrimary() {
		return nil
	}
	if !r.live.Load() { // our Close may have closed the replica under the statement
		if failed.isPrimary() {
			return nil
		}
		return r.again(rec, r.primary())
	}
	hint := rec.Hint()
	p, perr := a.r.belongs(rec, hint)
	if perr != nil || p.r != r {
		return nil
	}
	q := r.questionOf(ctx, rec, hint, &p, 0)
	if q.favourite == failed {
		q.favourite = nil
		if q.favour == reasonPreload { // another replica may be behind the parent
			q.toPrimary, q.why = true, reasonPreload
		}
	}
	q.exclude = failed
	// It will not be sent a third time, and replicas may fall together: the primary
	// is the surest, and statements that were under way are not many.
	if !q.toPrimary && !failed.isPrimary() && r.primary().valid.Load() >= r.now() && optionsOf(ctx).priority != Background {
		q.toPrimary, q.why = true, reasonRetry
	}
	n, why, err := r.settle(ctx, &q)
	if err == nil && n == failed && f != noFailure {
		if err = r.awaitReturn(ctx, failed, f, cause); err == nil {
			n, failed = r.primary(), nil
		}
	}
	if err != nil || n == failed || r.refuse(n) != nil || q.spilled(why) && r.class(q.priority).Spill < 0 {
		return nil
	}
	r.bind(rec, &q, n)
	return r.again(rec, n)
}

// awaitReturn waits, where only the primary will do, for the one that comes back
// after it failed with err, or for the next.
func (r *Resolver) awaitReturn(ctx context.Context, failed *node, f failure, err error) error {
	switch {
	case f == dropped:
		return nil
	case !r.live.Load() || len(r.replicas()) == 0, f != refused && (f != timedOut || !hook.NotSent(err)):
		return err
	}
	if hook.NotSent(err) {
		// A server that shuts down goes on answering on the connections that it
		// has, the probe's among them. Another one shows whether it takes any.
		failed.moved.Store(true)
	}
	return r.awaitPrimary(ctx, r.now())
}

// again counts another attempt in, whatever the priority: it was let in before.
func (r *Resolver) again(rec *hook.Record, n *node) *hook.Node {
	n.inFlight.Add(1)
	if n.drained() {
		n.leave()
		n = r.primary()
		n.inFlight.Add(1)
	}
	if rec.Session != nil {
		rec.Mark |= markAgain
	}
	return r.send(rec, n, reasonRetry)
}

// takeBack takes an attempt that failed before a row came out of its session: it
// showed nothing, and must not bind the next one.
func takeBack(rec *hook.Record) {
	if s, ok := rec.Session.(*session); ok && rowsOf(rec) {
		s.showedNothing()
	}
	rec.Session = nil
}

// blame notes what a statement met on a node.
func (r *Resolver) blame(n *node, f failure, err error) {
	if f == refused || f == timedOut || f == saturated {
		n.connErrors.Add(1)
	}
	if f == refused && r.live.Load() && len(r.replicas()) > 0 {
		r.suspect(n, f, err, false)
	}
}

// Done implements hook.Router.
func (a *router) Done(rec *hook.Record, hn *hook.Node, err error, d time.Duration) {
	n := a.r.nodeOf(hn)
	if n == nil {
		return
	}
	n.leave()
	n.home.unspill(rec)
	if rec.Mark&markMayWrite != 0 { // also after the attempt that was refused, which is no harm
		a.r.Wrote(rec.Context)
	}
	if rec.Mark&markAgain != 0 { // of the attempt before: takeBack has counted it out
		rec.Mark &^= markAgain
	} else if s, ok := rec.Session.(*session); ok && rowsOf(rec) {
		s.saw(n, n.home.now(), true)
		rec.Session = nil
	}
	switch {
	case err != nil:
		// What failed before a row came has been blamed by Retry. Later, an EOF
		// may as well be a decoder's.
		if rec.Context.Err() == nil {
			n.home.blameLate(n, err)
		}
	case rec.Chain == hook.Query && rec.Access == hook.ReadOnly:
		n.observe(d)
	}
}

func (r *Resolver) blameLate(n *node, err error) {
	if f := failureOf(err, false); f == refused && n.usable.Load() {
		r.blame(n, f, err)
	}
}

// OutcomeUnknown implements hook.OutcomeTeller.
func (a *router) OutcomeUnknown(err error) error {
	if a.r.off&outcomeRule != 0 {
		return err
	}
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
}

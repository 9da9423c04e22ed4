package resolver

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// This file lets statements onto nodes: by priority, so that the less urgent
// leave connections to the more urgent, and onto the primary, when no replica is
// fit, only so many that it lives.

// gate bounds the statements on a node by priority. Transactions pass by it.
type gate struct {
	limits  [numPriorities]atomic.Int64 // most in flight at which one more may come; 0: no bound
	waiting [numPriorities]atomic.Int64
	waits   atomic.Uint64                // how often somebody waited, since the start
	waited  atomic.Int64                 // nanoseconds
	room    [numPriorities]chan struct{} // holds one value when there may be room
}

func (g *gate) init() {
	for i := range g.room {
		g.room[i] = make(chan struct{}, 1)
	}
}

// bound sets the limits of a pool of that size.
func (g *gate) bound(connections, reserve int) {
	if connections <= 0 {
		return
	}
	if reserve > 0 {
		g.limits[Normal].Store(int64(max(connections-reserve, 1)))
	}
	g.limits[Background].Store(int64(max(min(connections/2, connections-reserve), 1)))
}

// enter counts one more statement in, unless the node is drained or its
// connections are for more urgent ones.
func (n *node) enter(p Priority) bool {
	now := n.inFlight.Add(1)
	if limit := n.gate.limits[p].Load(); limit > 0 && now > limit || n.drained() {
		n.leave()
		return false
	}
	return true
}

// leave counts a statement out and wakes one that waits, the urgent first.
func (n *node) leave() {
	n.passOn(n.inFlight.Add(-1))
}

// passOn wakes one that waits, if there is room with now in flight.
func (n *node) passOn(now int64) {
	for _, p := range [...]Priority{Normal, Background} {
		if n.gate.waiting[p].Load() > 0 && now < n.gate.limits[p].Load() {
			select {
			case n.gate.room[p] <- struct{}{}:
			default:
			}
			return
		}
	}
}

// The marks of a statement.
const (
	markSpilled  = 1 << iota // it counts as spilled
	markAgain                // its session knows of the attempt that comes, and not of the one that ends
	markMayWrite             // a standby refused it as a write, although it looks like a read
)

// admit chooses a node for a read or write outside transactions and counts it in.
func (r *Resolver) admit(ctx context.Context, rec *hook.Record, q *question) (*hook.Node, error) {
	n, why, err := r.settle(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.spilled(why) || !n.enter(q.priority) {
		q.now = 0
		if n, why, err = r.admitSlowly(ctx, rec, q); err != nil {
			return nil, err
		}
	}
	if err := r.refuse(n); err != nil {
		n.leave()
		r.unspill(rec)
		return nil, err
	}
	if q.now == 0 {
		rec.Delayed()
	}
	r.bind(rec, q, n)
	hn := r.send(rec, n, why)
	if r.root.cfg.Trace {
		rec.Node = hn // for rows that are still read when GORM logs
		r.traced(rec)
	}
	return hn, nil
}

// admitSlowly is for reads that find no replica, or a node without room for
// them: it waits as their priority allows.
func (r *Resolver) admitSlowly(ctx context.Context, rec *hook.Record, q *question) (*node, reason, error) {
	class := r.class(q.priority)
	var until *time.Timer
	defer func() {
		if until != nil {
			until.Stop()
		}
	}()
	for {
		probed := r.nextProbe()
		n, why := r.decide(q)
		room := (<-chan struct{})(nil)
		var refused error
		if q.spilled(why) {
			r.spillWaiting.Add(1) // before the count is looked at, so that no room is missed
			refused = r.spill(rec, q, why, class)
			if refused == nil {
				r.spillWaiting.Add(-1)
				r.passOn()
			}
		}
		if refused == nil {
			if n.enter(q.priority) {
				n.passOn(n.inFlight.Load())
				return n, why, nil
			}
			r.unspill(rec)
			if n.drained() {
				continue // the next decision knows
			}
			n.gate.waiting[q.priority].Add(1)
			if n.inFlight.Load() < n.gate.limits[q.priority].Load() {
				n.gate.waiting[q.priority].Add(-1)
				continue
			}
			room = n.gate.room[q.priority]
			if q.priority == Background {
				refused = fmt.Errorf("%w: %s has no connection to spare for the background", ErrBusy, n.name)
			}
		}
		began := r.now()
		err := r.await(ctx, class.Wait, refused, &until, room, probed)
		if room != nil {
			n.gate.waiting[q.priority].Add(-1)
			n.gate.waits.Add(1)
			n.gate.waited.Add(r.now() - began)
		} else {
			r.spillWaiting.Add(-1)
		}
		if err != nil {
			r.refusals[q.priority].Add(1)
			return nil, 0, err
		}
	}
}

// await waits for room or a probe: with a refusal for as long as wait allows.
func (r *Resolver) await(ctx context.Context, wait time.Duration, refused error, until **time.Timer, room, probed <-chan struct{}) error {
	var expired <-chan time.Time
	if refused != nil {
		if wait <= 0 {
			return refused
		}
		if *until == nil {
			*until = time.NewTimer(wait)
		}
		expired = (*until).C
	}
	if refused == nil {
		probed = nil // there is a node: it is room that is waited for
	}
	select {
	case <-room:
	case <-r.spillRoom:
	case <-probed:
	case <-expired:
		return refused
	case <-ctx.Done():
		if refused != nil {
			return fmt.Errorf("%w: %w", refused, ctx.Err())
		}
		return fmt.Errorf("resolver: wait for a connection: %w", ctx.Err())
	case <-r.done():
		return nil
	}
	return nil
}

func (r *Resolver) nextProbe() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.probed
}

// spilled reports whether a read that may use replicas is on the primary because
// none is fit.
func (q *question) spilled(why reason) bool {
	switch why {
	case reasonOwnWrite, reasonSeen, reasonLag, reasonPosition, reasonCacheFill, reasonDown:
		return !q.toPrimary
	}
	return false
}

// spill lets a read onto the primary for want of a replica, or says why not.
func (r *Resolver) spill(rec *hook.Record, q *question, why reason, class *Class) error {
	limit := int64(math.MaxInt64)
	switch {
	case q.priority == Background && class.Spill < 0:
		return fmt.Errorf("%w: %s", ErrNoReplica, r.whyNot(q, why))
	case why == reasonOwnWrite, why == reasonSeen:
		return nil
	case class.Spill == 0 && q.priority == Critical:
	case class.Spill > 0:
		limit = int64(class.Spill)
	case class.Spill < 0:
		limit = 0
	default:
		if most := r.primary().most.Load(); most > 0 {
			limit = max(most/2, 1)
		}
	}
	if now := r.spills.Add(1); now > limit {
		r.spills.Add(-1)
		if limit == 0 {
			return fmt.Errorf("%w: %s", ErrNoReplica, r.whyNot(q, why))
		}
		return fmt.Errorf("%w: %s, and %d such reads are on the primary already", ErrBusy, r.whyNot(q, why), limit)
	}
	rec.Mark |= markSpilled
	return nil
}

// unspill takes a statement out of the count of spilled ones.
func (r *Resolver) unspill(rec *hook.Record) {
	if rec.Mark&markSpilled != 0 {
		rec.Mark &^= markSpilled
		r.spills.Add(-1)
		r.passOn()
	}
}

// passOn wakes one read that waits to spill. It looks itself whether it may.
func (r *Resolver) passOn() {
	if r.spillWaiting.Load() > 0 {
		select {
		case r.spillRoom <- struct{}{}:
		default:
		}
	}
}

// whyNot says in words why no replica is fit.
func (r *Resolver) whyNot(q *question, why reason) string {
	switch why {
	case reasonOwnWrite:
		return "no replica has the caller's own write yet"
	case reasonSeen:
		return "no replica surely has what the caller was shown"
	case reasonLag:
		return fmt.Sprintf("all replicas are more than %v behind", q.bound)
	case reasonPosition, reasonCacheFill:
		return "no replica has come to the position that is needed"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	text := "all replicas are out of rotation"
	for _, n := range r.replicas() {
		if !n.usable.Load() {
			detail := n.lastErr
			if n.misfit != fits {
				detail = n.misfit.String()
			}
			if detail != "" {
				return fmt.Sprintf("%s (%s: %s)", text, n.name, detail)
			}
		}
	}
	return text
}

package cachehook

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"github.com/gorminfra/infra/internal/hook"
)

// A flight on another goroutine outlives its leader's caller, whose query goes on for
// those who wait. But to hand work over and back has the scheduler wake a thread twice,
// and that takes as long as a third of a short query. So what was quick the last time
// is read on the caller's own goroutine and under his own context. A caller who leaves
// takes the query with him, as without a cache, and the flight begins it anew on
// another goroutine: of what is quick that is not much.

// quickMicroseconds is what a flight may have taken the last time for the next one to
// be on the spot: of that long a query the handing over is one or two percent.
const quickMicroseconds = 1000

// leadOnSpot is lead on the caller's goroutine.
func (c *Cache) leadOnSpot(ctx context.Context, r *hook.Record, q *query, s standing, f *flight, name string) (*sql.Rows, error) {
	var (
		found *entry // by another flight, just now
		at    level
		fault error
		tail  *remainder
	)
	over := c.flights.onSpot(name, f, func() (landing, bool) {
		if found, at, _ = c.again(q, s.stamps, true, &s.why); found != nil {
			if _, not := found.value.(unstorable); not {
				return landing{}, true
			}
			return landing{verdict: landed, entry: found}, true
		}
		c.missed(r, q, s.why)
		began := c.now()
		got, rows, err := c.read(ctx, r, q, s.stamps, q.wants(r))
		switch {
		case errors.Is(err, errUnstorable):
			c.keepUnstorable(q, s.stamps, began)
			tail = newRemainder(got.set, got.odd, rows, func(int64, error) {})
			return landing{}, true
		case err != nil && ctx.Err() != nil && r.Outcome != hook.Refused:
			fault = ctx.Err()
			return landing{}, false
		case err != nil:
			fault = err
			return failure(ctx, r, err), true
		}
		r.Read()
		e, after := c.keep(q, s.stamps, got, began)
		if after != nil {
			c.flights.later(after)
		}
		if c.closed.Load() { // memory was cleared, perhaps before it was filled
			c.memory.clear()
		}
		return landing{verdict: landed, entry: e}, true
	})
	switch {
	case !over:
		c.flyOn(ctx, r, q, s, f, name)
		return nil, fault
	case found != nil:
		return c.hit(ctx, r, q, found, at)
	case fault != nil:
		return nil, fault
	case tail != nil:
		return c.hub.Load().Replay().Rows(ctx, tail)
	}
	return c.show(ctx, r, f.entry)
}

// flyOn begins the query of a flight anew whose caller has left, for those who wait
// and for memory.
func (c *Cache) flyOn(ctx context.Context, r *hook.Record, q *query, s standing, f *flight, name string) {
	q.plan.took.Store(math.MaxUint32) // it may not be quick any more
	args, own := ownArgs(r.Args)
	if !own || !c.flights.resume() { // the caller may change them from now on
		c.flights.land(name, f)
		return
	}
	x := &expedition{gone: true, c: c, q: q, s: s, f: f}
	c.embark(ctx, x, f)
	x.fork = r.Fork(x.ctx)
	x.fork.Args, x.fork.Scope, x.fork.Parent = args, nil, nil // it is no part of the request any more
	x.into = q.wants(r)
	c.flights.start(name, f, x.work)
}

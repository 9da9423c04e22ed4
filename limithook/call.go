package limithook

import (
	"context"
	"errors"
	"fmt"
)

// call is one question to Redis, about one or both accounts.
type call struct {
	s            *shared
	sub          *subject
	sh           *sharedShard // of the user's holding
	cost         int
	charge       bool
	user, global asked

	o outcome // the answer; the caller may read it once do returned nil
}

// asked is what a call asks of one account.
type asked struct {
	limit    *sharedLimit // nil: nothing is asked
	holding  *holding     // where the answer goes; nil: no such account
	extra    int          // to lease beyond the cost
	reserved bool         // paid from a lease instead
	stamp    int64        // of that lease
	reply    reply
}

// prepare reserves the cost from the lease or else asks Redis for it. The
// holding's mutex is held.
func (a *asked) prepare(h *holding, limit *sharedLimit, now int64, cost, most int) {
	switch {
	case h == nil:
	case h.has(now, cost):
		h.units -= cost
		a.holding, a.reserved, a.stamp = h, true, h.stamp
	default:
		a.holding, a.limit = h, limit
		if limit.term > 0 {
			a.extra = h.extra(now, cost, most)
		}
	}
}

// release ends the asking for a lease, and gives back what was reserved for a
// request that did not pass.
func (a *asked) release(passed bool, cost int) {
	if a.reserved && !passed {
		a.holding.giveBack(a.stamp, cost)
	}
	if a.extra > 0 {
		a.holding.asking = false
	}
}

// settle takes the answer in and returns how the account stands by it.
func (a *asked) settle(cost int, charge bool, sent, got int64) (s standing) {
	if a.holding == nil {
		return s
	}
	var wait int64
	if a.limit != nil {
		a.holding.settle(&a.reply, cost, sent, got, a.limit.term)
		wait = a.reply.wait
		if !charge && a.holding.has(got, cost) {
			wait = 0 // a lease would pay
		}
	}
	s = a.holding.standing(got)
	s.wait = wait
	return s
}

// do asks and waits for at most the timeout.
func (c *call) do(ctx context.Context) (o outcome, err error) {
	begun := c.s.clock()
	started, err := c.s.link.do(ctx, c.run)
	if err == nil {
		o = c.o
		o.waited = c.s.clock() - begun
		return o, nil
	}
	if !started {
		c.s.lock(c.sh)
		c.release(false)
		c.s.unlock(c.sh)
	}
	switch {
	case ctx.Err() != nil:
		return o, fmt.Errorf("limithook: ask Redis: %w", context.Cause(ctx))
	case errors.Is(err, errClosed):
		return outcome{ok: true}, nil
	}
	o = c.s.degrade(c.sub, c.cost, c.charge, err)
	o.waited = c.s.clock() - begun
	return o, nil
}

// run asks and takes the answer in, leases with it. It may end after the caller
// has gone and has been answered otherwise.
func (c *call) run(ctx context.Context) error {
	sent := c.s.clock()
	err := c.s.logs.ask(ctx, c)
	got := c.s.clock()
	c.s.lock(c.sh)
	defer c.s.unlock(c.sh)
	// Refused by one limit is charged to none, to a lease neither.
	c.release(err == nil && c.user.reply.wait == 0 && c.global.reply.wait == 0)
	if err != nil {
		return err
	}
	c.o.user = c.user.settle(c.cost, c.charge, sent, got)
	c.o.global = c.global.settle(c.cost, c.charge, sent, got)
	if c.global.holding != nil {
		c.s.globalRefused.Store(c.global.holding.refusedCost != 0)
	}
	c.o.ok = c.o.user.wait == 0 && c.o.global.wait == 0
	return nil
}

func (c *call) release(passed bool) {
	c.user.release(passed, c.cost)
	c.global.release(passed, c.cost)
}

package limithook

import (
	"context"
	"errors"
	"fmt"
)

// call is one question to Redis, about all accounts that no lease paid for.
type call struct {
	s      *shared
	t      *terms
	sub    *subject
	cost   int
	charge bool
	share  int // that the accounts lie in
	claims []claim
	few    [2]claim

	replies []reply // of the claims not paid, in their order
	two     [2]reply

	o outcome // the answer; the caller may read it once do returned nil
}

// ask puts a call together and waits for its answer for at most the timeout.
func (s *shared) ask(ctx context.Context, t *terms, sub *subject, keys []string, now int64, cost int, charge bool, claims []claim) (o outcome, err error) {
	c := &call{s: s, t: t, sub: sub, cost: cost, charge: charge, share: claims[0].from.share}
	c.claims = append(c.few[:0], claims...)
	c.replies = c.two[:0]
	for i := range c.claims {
		if cl := &c.claims[i]; !cl.paid {
			c.replies = append(c.replies, reply{})
			if charge {
				last := cl.from.armed.Load()
				cl.arm = last == 0 || now-last > int64(cl.limit.Window)
				if cl.limit.term > 0 {
					cl.extra = cl.from.extra(now, cost, s.most)
				}
			}
		}
	}
	begun := s.clock()
	started, err := s.link.do(ctx, c)
	if err == nil {
		o = c.o
		o.waited = s.clock() - begun
		return o, nil
	}
	if !started {
		release(c.claims, false, cost)
	}
	switch {
	case ctx.Err() != nil:
		return o, fmt.Errorf("limithook: ask Redis: %w", context.Cause(ctx))
	case errors.Is(err, errClosed):
		return outcome{ok: true}, nil
	}
	o = s.degrade(t, sub, keys, cost, charge, err)
	o.waited = s.clock() - begun
	return o, nil
}

// run asks and takes the answer in, leases with it. It may end after the caller
// has gone and has been answered otherwise.
func (c *call) run(ctx context.Context) error {
	sent, known := c.s.clock(), c.s.epochs[c.share].Load()
	err := c.s.logs.ask(ctx, c)
	got := c.s.clock()
	c.o.ok = err == nil
	for i := range c.replies {
		c.o.ok = c.o.ok && c.replies[i].wait == 0
	}
	// Refused by one limit is charged to none, to a lease neither.
	release(c.claims, c.o.ok, c.cost)
	if err != nil {
		return err
	}
	c.settle(sent, got, known)
	return nil
}

func (c *call) settle(sent, got, known int64) {
	asked := 0
	for i := range c.claims {
		cl := &c.claims[i]
		if cl.paid {
			at := cl.from.standing(got)
			c.o.tell(cl.limit, &at, !c.charge)
			continue
		}
		a := &c.replies[asked]
		asked++
		if a.epoch == 0 { // long ago, or never
			a.epoch = known
		}
		c.s.learn(c.share, a.epoch)
		if a.granted > 0 {
			c.s.leased.Add(uint64(a.granted))
		}
		wait := a.wait
		if cl.arm && c.o.ok {
			cl.from.armed.Store(max(sent, 1))
		}
		cl.from.settle(a, c.cost, sent, got, cl.limit.term)
		if !c.charge && cl.from.lease.covers(got, c.cost) {
			wait = 0 // a lease would pay
		}
		at := cl.from.standing(got)
		at.wait = wait
		c.o.tell(cl.limit, &at, !c.charge)
	}
	if !c.charge {
		c.o.ok = c.o.wait == 0
	}
	c.orphans(got)
}

// orphans gives back what was leased under terms that were changed meanwhile.
func (c *call) orphans(now int64) {
	if !c.t.retired.Load() {
		return
	}
	for i := range c.claims {
		if cl := &c.claims[i]; cl.extra > 0 {
			if u, ok := cl.from.unspent(now); ok {
				c.s.logs.giveBack(c.t.held.tags, []unspent{u})
			}
		}
	}
}

package limithook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
)

// shared keeps the count in Redis. It answers from leases and remembered
// refusals where it can, asks Redis in one round trip for all accounts where
// it cannot, and leaves the decision to a Mode while Redis does not answer.
type shared struct {
	clock func() int64
	logs  *redisLogs
	link  *link
	mode  Mode
	local *memory // for Local
	most  int     // Lease.Max

	// epochs are the latest instants at which, as far as is known, something
	// else than time made room in a share: a reset, or a lease that was given
	// back. A refusal from before is not repeated.
	epochs []atomic.Int64

	tallies  [maxShards]tally
	degraded atomic.Uint64
	leased   atomic.Uint64
}

// tally counts what was decided without asking Redis, for a part of the users.
type tally struct {
	leaseHits  atomic.Uint64
	remembered [maxRules + 2]atomic.Uint64 // by place of the limit

	_ [40]byte
}

func newShared(cfg Config, clock func() int64) *shared {
	s := &shared{
		clock:  clock,
		logs:   newRedisLogs(cfg.Redis, cfg.Name, cfg.Timeout),
		mode:   cfg.OnRedisFailure,
		most:   cfg.Lease.Max,
		epochs: make([]atomic.Int64, maxShares),
	}
	if s.mode == Local {
		s.local = newMemory(cfg, clock)
	}
	s.link = newLink(cfg, s.logs)
	s.link.direct = s.logs.bounded && cfg.Timeout <= longestDirect
	return s
}

// claim is one account of a decision.
type claim struct {
	limit *limit
	from  *holding
	paid  bool   // from a lease
	tick  uint64 // of that lease
	extra int    // to lease beyond the cost
	arm   bool   // the log is to be kept for two windows from now
}

// decide decides on a cost and charges it. keys are those of the rules, nil
// where none applies.
func (s *shared) decide(ctx context.Context, t *terms, sub *subject, keys []string, cost int, o *outcome) error {
	now := s.clock()
	if keys == nil {
		if s.hereForBoth(t, sub, now, cost, o) {
			return nil
		}
		var few [2]claim
		return s.on(ctx, t, sub, nil, now, cost, s.claims(t, sub, nil, few[:0]), o)
	}
	var many [maxRules + 2]claim
	return s.on(ctx, t, sub, keys, now, cost, s.claims(t, sub, keys, many[:0]), o)
}

// hereForBoth is here for the usual case, a user and all together: without a list of
// accounts it takes an eighth less.
func (s *shared) hereForBoth(t *terms, sub *subject, now int64, cost int, o *outcome) (done bool) {
	l, all := t.user(), t.global()
	if !l.on() || sub.key == "" || !all.on() {
		return false
	}
	from := t.held.user(sub)
	of := &t.held.all[from.share]
	count := &s.tallies[sub.hash%maxShards]
	var wait int64
	if tick, ok := from.lease.spend(now, cost); ok {
		if _, ok := of.lease.spend(now, cost); ok {
			count.leaseHits.Add(1)
			o.ok, o.counted = true, true
			o.limit, o.standing = l, from.standing(now)
			return true
		}
		from.lease.giveBack(tick, cost)
	} else {
		wait = from.refused(now, cost, s.epochs)
	}
	if !of.lease.covers(now, cost) {
		if w := of.refused(now, cost, s.epochs); w > wait {
			wait, l, from = w, all, of
		}
	}
	if wait == 0 {
		return false
	}
	count.remembered[l.place].Add(1)
	o.counted = true
	o.limit, o.standing = l, from.standing(now)
	o.wait = wait
	return true
}

func (s *shared) on(ctx context.Context, t *terms, sub *subject, keys []string, now int64, cost int, claims []claim, o *outcome) (err error) {
	switch {
	case s.here(now, cost, claims, &s.tallies[sub.hash%maxShards], o):
	case s.link.down.Load():
		release(claims, false, cost)
		*o = s.degrade(t, sub, keys, cost, true, s.link.why())
	default:
		*o, err = s.ask(ctx, t, sub, keys, now, cost, true, claims)
	}
	return err
}

// claims appends the accounts that a request is charged to. to has room for them
// and is empty in all its length: filling in is cheaper than copying.
func (s *shared) claims(t *terms, sub *subject, keys []string, to []claim) []claim {
	share := 0
	if l := t.user(); l.on() && sub.key != "" {
		u := t.held.user(sub)
		share = u.share
		to = to[:len(to)+1]
		to[len(to)-1].limit, to[len(to)-1].from = l, u
	} else if len(t.held.all) > 1 {
		if share = t.held.shareOf(sub.key); sub.key == "" {
			share = rand.IntN(len(t.held.all)) // nobody's: anywhere
		}
	}
	for i, key := range keys {
		if l := &t.limits[i+1]; key != "" && l.on() {
			to = to[:len(to)+1]
			to[len(to)-1].limit, to[len(to)-1].from = l, t.held.rule(i, key)
		}
	}
	if l := t.global(); l.on() {
		to = to[:len(to)+1]
		to[len(to)-1].limit, to[len(to)-1].from = l, &t.held.all[share]
	}
	return to
}

// here decides from what is held, if that is possible. If not, what could be
// paid from leases is.
func (s *shared) here(now int64, cost int, claims []claim, count *tally, o *outcome) (done bool) {
	if len(claims) == 0 {
		o.ok = true
		return true
	}
	paid, refused := 0, -1
	var wait int64
	for i := range claims {
		c := &claims[i]
		if refused < 0 {
			if c.tick, c.paid = c.from.lease.spend(now, cost); c.paid {
				paid++
				continue
			}
		} else if c.from.lease.covers(now, cost) {
			continue
		}
		if w := c.from.refused(now, cost, s.epochs); w > wait {
			wait, refused = w, i
		}
	}
	c := &claims[0]
	switch {
	case paid == len(claims):
		o.ok = true
		count.leaseHits.Add(1)
	case refused >= 0:
		if paid > 0 {
			release(claims, false, cost)
		}
		c = &claims[refused]
		count.remembered[c.limit.place].Add(1)
	default:
		return false
	}
	o.counted = true
	o.limit, o.standing = c.limit, c.from.standing(now)
	o.wait = wait
	return true
}

// release gives back what was paid for a request that did not pass, and ends
// the asking for leases.
func release(claims []claim, passed bool, cost int) {
	for i := range claims {
		c := &claims[i]
		if c.paid && !passed {
			c.from.lease.giveBack(c.tick, cost)
		}
		if c.extra > 0 {
			c.from.asked()
		}
	}
}

// degrade decides without Redis.
func (s *shared) degrade(t *terms, sub *subject, keys []string, cost int, charge bool, cause error) (o outcome) {
	s.degraded.Add(1)
	switch s.mode {
	case Local:
		// A cost above this instance's part passes when its log is empty.
		s.local.run(t.local, sub, keys, t.local.fit(sub, keys, cost), charge, &o)
	case Open:
		o.ok = true
	default:
		o.cause = cause
	}
	o.degraded = true
	return o
}

// peek tells how the first of the accounts stands and whether, and when, a
// request of cost 1 passes all.
func (s *shared) peek(ctx context.Context, t *terms, sub *subject, keys []string) (outcome, error) {
	if s.link.down.Load() {
		return s.degrade(t, sub, keys, 1, false, s.link.why()), nil
	}
	claims := s.claims(t, sub, keys, make([]claim, 0, len(t.limits)))
	switch {
	case len(claims) == 0:
		return outcome{ok: true}, nil
	case len(claims) > 1 || sub.key != "" || claims[0].limit.shares == 1:
		return s.ask(ctx, t, sub, keys, 0, 1, false, claims)
	}
	var all outcome // of the shares of the global limit together
	for i := range t.held.all {
		claims[0].from = &t.held.all[i]
		o, err := s.ask(ctx, t, sub, keys, 0, 1, false, claims)
		switch {
		case err != nil || o.degraded:
			return o, err
		case i == 0:
			all = o
			continue
		}
		all.remaining += o.remaining
		all.wait, all.ok = min(all.wait, o.wait), all.ok || o.ok
		if all.reset == 0 || o.reset > 0 && o.reset < all.reset {
			all.reset = o.reset
		}
	}
	return all, nil
}

// reset forgets what was charged to an account, here too by local.
func (s *shared) reset(ctx context.Context, t *terms, l *limit, h *holding, local func(*memory)) error {
	var epoch int64
	_, err := s.link.do(ctx, runFunc(func(ctx context.Context) (err error) {
		epoch, err = s.logs.reset(ctx, t.held.tags[h.share], h.keys, l)
		return err
	}))
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("limithook: reset: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("limithook: reset: %w", err)
	}
	s.learn(h.share, epoch)
	if s.local != nil {
		local(s.local)
	}
	return nil
}

// learn notes an epoch that Redis told.
func (s *shared) learn(share int, epoch int64) {
	for at := &s.epochs[share]; ; {
		if known := at.Load(); known >= epoch || at.CompareAndSwap(known, epoch) {
			return
		}
	}
}

func (s *shared) stats(t *terms, st *Stats) {
	st.Degraded, st.Leased = s.degraded.Load(), s.leased.Load()
	s.link.stats(st)
	if s.local != nil {
		s.local.stats(st)
	}
	if t.held != nil {
		st.Keys += t.held.size()
	}
	for i := range s.tallies {
		st.LeaseHits += s.tallies[i].leaseHits.Load()
		for j := range s.tallies[i].remembered {
			st.Remembered += s.tallies[i].remembered[j].Load()
		}
	}
}

// retire gives the unspent leases of terms that no longer apply back.
func (s *shared) retire(t *terms) {
	if s.link.down.Load() {
		return
	}
	now := s.clock()
	var back []unspent
	t.held.each(func(h *holding) {
		if u, ok := h.unspent(now); ok {
			back = append(back, u)
		}
	})
	// What cannot be given back in time is charged until its window has
	// passed, as after a crash.
	s.logs.giveBack(t.held.tags, back)
}

// leave retires terms in the background.
func (s *shared) leave(t *terms) {
	if s.link.enter() {
		go func() {
			defer s.link.running.Done()
			s.retire(t)
		}()
	}
}

// close waits for the calls under way and gives the unspent leases back.
func (s *shared) close(t *terms) {
	s.link.stop()
	s.retire(t)
}

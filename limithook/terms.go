package limithook

import (
	"context"
	"fmt"
	"math/bits"
	"sync/atomic"
)

// limit is one of the limits in force, with what the stores need of it made once.
type limit struct {
	Limit
	scope Scope
	place int // in terms.limits

	term                    int64 // of a lease, in nanoseconds; 0: no leases
	argMax, argWindow, argT any   // as the script takes them: instants in microseconds
	shares                  int   // of the global limit in Redis, at least 1
}

// terms are the limits in force at a time. They never change: a live change
// makes new ones, and whatever was remembered or leased under the old ones goes
// with them.
type terms struct {
	limits []limit // the user's, the rules', and last that of all together
	rules  []Rule
	any    bool // something is limited
	ruled  bool // by a rule too

	local *terms // what applies to this process alone, under Local
	held  *held  // from Redis, nil in memory
	// retired: others have taken their place. A call under way gives back what it
	// leases.
	retired atomic.Bool
}

func newTerms(cfg Config) *terms {
	t := plainTerms(cfg, 1)
	if cfg.Redis != nil {
		if cfg.OnRedisFailure == Local {
			t.local = plainTerms(cfg, cfg.Instances)
		}
		t.held = newHeld(cfg, t)
	}
	return t
}

// plainTerms gives the part of one of so many instances.
func plainTerms(cfg Config, instances int) *terms {
	t := &terms{rules: cfg.Rules}
	add := func(l Limit, scope Scope) {
		t.limits = append(t.limits, newLimit(part(l, instances), cfg.Lease, scope, len(t.limits)))
		t.any = t.any || !l.IsZero()
	}
	add(cfg.PerUser, ScopeUser)
	for _, r := range cfg.Rules {
		add(r.Rate, Scope(r.Name))
		t.ruled = t.ruled || !r.Rate.IsZero()
	}
	add(cfg.Global, ScopeGlobal)
	return t
}

func newLimit(l Limit, lease Lease, scope Scope, place int) limit {
	shares := max(1, l.Shards)
	share := l.Max / shares // so that all shares together admit no more than Max
	term := leaseTerm(l, lease)
	return limit{
		Limit: l, scope: scope, place: place, shares: shares, term: term,
		argMax: share, argWindow: l.microseconds(), argT: term / 1000,
	}
}

// microseconds is the window, a part of one counting as a whole.
func (l Limit) microseconds() int64 { return int64((l.Window + 999) / 1000) }

func (l *limit) on() bool { return l.Max > 0 }

func (t *terms) user() *limit { return &t.limits[0] }

func (t *terms) global() *limit { return &t.limits[len(t.limits)-1] }

// keysOf appends what each rule charges for a request; empty: nothing. st is nil
// when it is no statement.
func (t *terms) keysOf(ctx context.Context, st *Statement, to []string) []string {
	for i := range t.rules {
		key := ""
		switch r := &t.rules[i]; {
		case r.Rate.IsZero() && !t.limits[i+1].on():
		case r.Key != nil:
			key = r.Key(ctx)
		case st != nil:
			key = r.KeyOf(ctx, *st)
		}
		to = append(to, heldKey(key))
	}
	return to
}

// heldKey is what is held of a key of a rule: its length does not depend on a client.
func heldKey(key string) string {
	if len(key) > maxPlainID || key != "" && key[0] == '#' {
		return "#" + digest(key, 16)
	}
	return key
}

// checkCost reports a cost that no amount of waiting would let pass.
func (t *terms) checkCost(s *subject, keys []string, n int) error {
	if n < 1 || n > maxCost {
		return fmt.Errorf("%w: %d: must be from 1 to %d", ErrCost, n, maxCost)
	}
	for i := range t.limits {
		l := &t.limits[i]
		most := l.Max
		switch {
		case !l.on(), i == 0 && s.key == "":
			continue
		case i == len(t.limits)-1:
			most = l.Max / l.shares
		case i > 0 && (keys == nil || keys[i-1] == ""):
			continue
		}
		if n > most {
			return fmt.Errorf("%w: %d is above the %s limit of %v", ErrCost, n, l.scope, l.Limit)
		}
	}
	return nil
}

// powerOfTwo returns the largest one that is at most n.
func powerOfTwo(n int) int { return 1 << (bits.Len(uint(n)) - 1) }

// ruleKey is how a key of keysOf is stored.
func ruleKey(rule, key string) string {
	if key[0] != '#' {
		key = plain(key)
	}
	return "r:" + rule + ":" + key
}

// fit returns the cost, or the most that all limits admit at once.
func (t *terms) fit(s *subject, keys []string, cost int) int {
	for i := range t.limits {
		if l := &t.limits[i]; l.on() && (i > 0 || s.key != "") && (i == 0 || i > len(keys) || keys[i-1] != "") {
			cost = min(cost, l.Max)
		}
	}
	return cost
}

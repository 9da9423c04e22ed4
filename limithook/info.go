package limithook

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Info returns how the user with that identity stands, without charging
// anybody. Scope, Limit, Remaining and ResetAfter are those of the user's limit;
// Allowed and RetryAfter say whether, and when, a request of cost 1 with ctx
// passes all limits, but for rules that only a statement meets, and whatever
// [Config.Shadow] says. With Redis it is one round trip, for a sharded global limit
// alone one a shard. For an empty user it speaks of [Config.Anonymous] if there is
// one, and of the global limit otherwise.
func (l *Limiter) Info(ctx context.Context, user string) (Decision, error) {
	t := l.terms.Load()
	if !t.any || l.off.Load() {
		return Decision{Allowed: true}, nil
	}
	var keys []string
	if t.ruled {
		keys = t.keysOf(ctx, nil, nil)
	}
	return l.info(ctx, t, l.named(user), keys)
}

// RuleInfo is [Limiter.Info] for a key of the rule of that name. Scope, Limit,
// Remaining and ResetAfter are those of the rule; Allowed and RetryAfter are of a
// request that meets it and the global limit alone. Limit is 0 where the rule
// limits nothing, as with an empty key. It reports a name that no rule has.
func (l *Limiter) RuleInfo(ctx context.Context, rule, key string) (Decision, error) {
	t := l.terms.Load()
	i, err := t.rule(rule)
	if err != nil || key == "" || !t.limits[i+1].on() || l.off.Load() {
		return Decision{Allowed: err == nil}, err
	}
	keys := make([]string, len(t.rules))
	keys[i] = heldKey(key)
	return l.info(ctx, t, nobody, keys)
}

func (l *Limiter) info(ctx context.Context, t *terms, s *subject, keys []string) (d Decision, err error) {
	var o outcome
	if l.shared == nil {
		l.memory.run(t, s, keys, 1, false, &o)
	} else if o, err = l.shared.peek(ctx, t, s, keys); err != nil {
		return d, err
	}
	o.decision(&d)
	d.unix, d.quiet = l.cfg.UnixReset, l.cfg.Shadow
	return d, nil
}

// Reset forgets what the user with that identity was charged; the global
// charge and those of rules stay. Other processes that remember a refusal of that
// user may repeat it until Redis next answers them anything, for a second at most;
// what they have leased stays charged. For an empty user it is [Config.Anonymous]
// that is forgotten.
func (l *Limiter) Reset(ctx context.Context, user string) error {
	t := l.terms.Load()
	s := l.named(user)
	if s.key == "" || !t.user().on() || l.off.Load() {
		return errors.New("limithook: reset: there is no user limit to reset")
	}
	if l.shared == nil {
		l.memory.reset(0, s.hash, s.key)
		return nil
	}
	return l.shared.reset(ctx, t, t.user(), t.held.user(s), func(m *memory) { m.reset(0, s.hash, s.key) })
}

// ResetRule is [Limiter.Reset] for a key of the rule of that name.
func (l *Limiter) ResetRule(ctx context.Context, rule, key string) error {
	t := l.terms.Load()
	i, err := t.rule(rule)
	switch {
	case err != nil:
		return err
	case key == "" || !t.limits[i+1].on() || l.off.Load():
		return fmt.Errorf("limithook: reset: rule %q does not limit %q", rule, key)
	}
	key = heldKey(key)
	hash := hashOf(key)
	if l.shared == nil {
		l.memory.reset(i+1, hash, key)
		return nil
	}
	return l.shared.reset(ctx, t, &t.limits[i+1], t.held.rule(i, key), func(m *memory) { m.reset(i+1, hash, key) })
}

// ResetGlobal is [Limiter.Reset] for the global limit, all shards of it. From then
// on Max can be admitted again, besides what the windows before hold: it is for an
// accident, such as a clock of Redis that was set forward and back.
func (l *Limiter) ResetGlobal(ctx context.Context) error {
	t := l.terms.Load()
	if !t.global().on() || l.off.Load() {
		return errors.New("limithook: reset: there is no global limit to reset")
	}
	if l.shared == nil {
		l.memory.resetGlobal()
		return nil
	}
	for i := range t.held.all {
		if err := l.shared.reset(ctx, t, t.global(), &t.held.all[i], (*memory).resetGlobal); err != nil {
			return err
		}
	}
	return nil
}

// rule returns the place of the rule of that name.
func (t *terms) rule(name string) (int, error) {
	i := slices.IndexFunc(t.rules, func(r Rule) bool { return r.Name == name })
	if i < 0 {
		return 0, fmt.Errorf("limithook: there is no rule %q", name)
	}
	return i, nil
}

func (l *Limiter) named(user string) *subject {
	if user != "" {
		s := newSubject("u:", user)
		return &s
	}
	if l.anonymous != nil {
		return l.anonymous
	}
	return nobody
}

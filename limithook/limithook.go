// Package limithook limits what each user, and all together, may ask of a
// database: never more than a stated number in any sliding window, exactly,
// in one process or in any number of them that share a Redis.
//
// [Limits] is the plugin of GORM: it charges each statement to the user of its
// context (see [WithUser]) and refuses it with an [*Error] before anything is
// sent. A [Limiter] decides; it knows nothing of GORM and may be used for
// anything else that is to be limited, such as requests. [SetHeaders] and
// [WriteRefusal] tell HTTP clients.
package limithook

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// maxCost is the highest cost of one request. Charging is linear in it, on
// the Redis server too.
const maxCost = 10_000

// Limiter decides whether a request may pass. It is safe for concurrent use.
type Limiter struct {
	cfg       Config
	store     store
	anonymous *subject // who stands for nobody; nil: nobody does
	off       atomic.Bool

	admitted, refusedUser, refusedGlobal, refusedDown, bypassed atomic.Uint64
}

// store keeps the count. decide charges both accounts or neither; peek charges
// nothing.
type store interface {
	decide(ctx context.Context, s *subject, cost int) (outcome, error)
	peek(ctx context.Context, s *subject) (outcome, error)
	reset(ctx context.Context, s *subject) error
	stats(*Stats)
	close()
}

// outcome is a store's answer, in nanoseconds.
type outcome struct {
	ok           bool
	degraded     bool // OnRedisFailure decided
	leased       bool // admitted from a lease, and counted as such
	user, global standing
	cause        error // why, when refused under Closed
	waited       int64 // for Redis
}

// NewLimiter starts a limiter, or reports every fault of cfg. It does not
// connect: a Redis that is down is met by OnRedisFailure.
func NewLimiter(cfg Config) (*Limiter, error) {
	return newLimiter(cfg, monotonic)
}

func newLimiter(cfg Config, clock func() int64) (*Limiter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &Limiter{cfg: cfg.withDefaults()}
	cfg = l.cfg
	if cfg.Disabled || cfg.PerUser.IsZero() && cfg.Global.IsZero() {
		l.off.Store(true)
	}
	if cfg.Anonymous != "" {
		a := newSubject("a:", cfg.Anonymous)
		l.anonymous = &a
	}
	if cfg.Redis == nil || l.off.Load() {
		l.store = newMemory(cfg.PerUser, cfg.Global, cfg.MaxKeys, clock)
	} else {
		l.store = newShared(cfg, clock)
	}
	return l, nil
}

// Allow charges 1 to the user of ctx and to the global limit. It returns nil
// or, having charged nobody, an [*Error]. The other errors are ctx's, when it
// ends while Redis is asked. It waits for at most Config.Timeout.
func (l *Limiter) Allow(ctx context.Context) error { return l.AllowN(ctx, 1) }

// AllowN is [Limiter.Allow] with a cost of n, from 1 to 10,000. An n above the
// limit could never pass and gives an error that matches [ErrCost].
func (l *Limiter) AllowN(ctx context.Context, n int) error {
	d, err := l.Decide(ctx, n)
	if err != nil || d.Allowed {
		return err
	}
	return l.Refusal(ctx, d)
}

// Decide is [Limiter.AllowN] with the numbers of the decision, of an admission
// too. A refusal is not an error here. It does not allocate unless it has to
// ask Redis.
func (l *Limiter) Decide(ctx context.Context, n int) (Decision, error) {
	return l.decide(ctx, l.subject(ctx), n)
}

func (l *Limiter) decide(ctx context.Context, s *subject, n int) (Decision, error) {
	if s.bypass {
		l.bypassed.Add(1)
		return Decision{Allowed: true}, nil
	}
	if l.off.Load() || s.key == "" && l.cfg.Global.IsZero() {
		l.admitted.Add(1)
		return Decision{Allowed: true}, nil
	}
	if n != 1 {
		if err := l.checkCost(s, n); err != nil {
			return Decision{}, err
		}
	}
	o, err := l.store.decide(ctx, s, n)
	if err != nil {
		return Decision{}, err
	}
	d := l.decision(s, &o)
	if !o.leased {
		l.count(&d)
	}
	return d, nil
}

func (l *Limiter) count(d *Decision) {
	switch {
	case d.Allowed:
		l.admitted.Add(1)
	case d.Scope == ScopeUser:
		l.refusedUser.Add(1)
	case d.Scope == ScopeGlobal:
		l.refusedGlobal.Add(1)
	default:
		l.refusedDown.Add(1)
	}
}

// subject returns whom ctx charges.
func (l *Limiter) subject(ctx context.Context) *subject {
	s := subjectOf(ctx)
	if !s.known && !s.alone && !s.bypass && l.anonymous != nil {
		return l.anonymous
	}
	return s
}

func (l *Limiter) checkCost(s *subject, n int) error {
	switch {
	case n < 1 || n > maxCost:
		return fmt.Errorf("%w: %d: must be from 1 to %d", ErrCost, n, maxCost)
	case s.key != "" && !l.cfg.PerUser.IsZero() && n > l.cfg.PerUser.Max:
		return fmt.Errorf("%w: %d is above the user limit of %v", ErrCost, n, l.cfg.PerUser)
	case !l.cfg.Global.IsZero() && n > l.cfg.Global.Max:
		return fmt.Errorf("%w: %d is above the global limit of %v", ErrCost, n, l.cfg.Global)
	}
	return nil
}

// Info returns how the user with that identity stands, without charging
// anybody. Scope, Limit, Remaining and ResetAfter are those of the user's limit;
// Allowed and RetryAfter say whether, and when, a request of cost 1 passes all
// limits. With Redis it is one round trip. For an empty user it speaks of
// [Config.Anonymous] if there is one, and of the global limit otherwise.
func (l *Limiter) Info(ctx context.Context, user string) (Decision, error) {
	if l.off.Load() {
		return Decision{Allowed: true}, nil
	}
	s := l.named(user)
	if s.key == "" && l.cfg.Global.IsZero() {
		return Decision{Allowed: true}, nil
	}
	o, err := l.store.peek(ctx, s)
	if err != nil {
		return Decision{}, err
	}
	d := l.decision(s, &o)
	if d.Scope == ScopeGlobal && l.limitsUser(s) { // which would refuse, but was not asked for
		retry := d.RetryAfter
		d = l.of(ScopeUser, &o)
		d.RetryAfter = retry
	}
	return d, nil
}

// Reset forgets what the user with that identity was charged; the global
// charge stays. Other processes may go on refusing the user for up to a
// second, and what they have leased stays charged. For an empty user it is
// [Config.Anonymous] that is forgotten.
func (l *Limiter) Reset(ctx context.Context, user string) error {
	s := l.named(user)
	if s.key == "" || l.cfg.PerUser.IsZero() {
		return errors.New("limithook: reset: there is no user limit to reset")
	}
	if err := l.store.reset(ctx, s); err != nil {
		return fmt.Errorf("limithook: reset: %w", err)
	}
	return nil
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

// Close gives unspent leases back to Redis and stops what the limiter started,
// which can take as long as the client's own timeouts if Redis hangs. The
// client stays open. Afterwards everything is admitted. It may be called more
// than once.
func (l *Limiter) Close() error {
	if !l.off.Swap(true) {
		l.store.close()
	}
	return nil
}

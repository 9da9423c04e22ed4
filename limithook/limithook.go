// Package limithook limits what each user, and all together, may ask of a
// database: never more than a stated number in any sliding window, exactly,
// in one process or in any number of them that share a Redis.
//
// A [Limiter] decides; it knows nothing of GORM and may be used for anything
// else that is to be limited.
package limithook

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
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
	user, global standing
	cause        error // why, when refused under Closed
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

// Decision is the answer to one request. Its numbers are those of the limit
// that refused or, if none did, of the user's limit where there is one and of
// the global one otherwise. Limit 0 means that no limit applies.
type Decision struct {
	Allowed bool
	Scope   Scope
	Limit   int
	// Remaining is how many more requests of cost 1 would be admitted now.
	// While leases are spent it is the knowledge of the last answer of Redis
	// less what was spent here since.
	Remaining int
	// RetryAfter is how long to wait until the same request is admitted if
	// nobody else comes, rounded up to a microsecond; 0 if it was admitted.
	RetryAfter time.Duration
	// ResetAfter is how long until Remaining next grows, which is when the
	// oldest request leaves the window; 0 when nothing is charged.
	ResetAfter time.Duration
	// Degraded says that Redis did not answer and OnRedisFailure decided.
	Degraded bool

	cause error
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
	return l.refusal(ctx, d)
}

// Decide is [Limiter.AllowN] with the numbers of the decision, of an admission
// too. A refusal is not an error here. It does not allocate unless it has to
// ask Redis.
func (l *Limiter) Decide(ctx context.Context, n int) (Decision, error) {
	s := l.subject(ctx)
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
	return d, nil
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

func (l *Limiter) decision(s *subject, o *outcome) Decision {
	d := Decision{Allowed: o.ok, Degraded: o.degraded}
	user := !l.cfg.PerUser.IsZero() && s.key != ""
	var at *standing
	switch {
	case !o.ok && o.user.wait == 0 && o.global.wait == 0:
		d.Scope, d.RetryAfter, d.cause = ScopeUnavailable, recheck, o.cause
		return d
	case user && (o.ok || o.user.wait >= o.global.wait):
		d.Scope, d.Limit, at = ScopeUser, l.cfg.PerUser.Max, &o.user
	case !l.cfg.Global.IsZero():
		d.Scope, d.Limit, at = ScopeGlobal, l.cfg.Global.Max, &o.global
	default:
		return d
	}
	d.Remaining = at.remaining
	d.RetryAfter = roundUp(at.wait)
	d.ResetAfter = roundUp(at.reset)
	return d
}

// roundUp returns ns nanoseconds in whole microseconds, never less.
func roundUp(ns int64) time.Duration {
	return time.Duration((ns + 999) / 1000 * 1000)
}

// refusal returns the error of a refused decision.
func (l *Limiter) refusal(ctx context.Context, d Decision) *Error {
	e := &Error{
		Scope:      d.Scope,
		Limit:      d.Limit,
		Remaining:  d.Remaining,
		RetryAfter: d.RetryAfter,
		Reset:      time.Now().Add(d.RetryAfter),
		cause:      d.cause,
	}
	switch d.Scope {
	case ScopeUser:
		e.Window = l.cfg.PerUser.Window
	case ScopeGlobal:
		e.Window = l.cfg.Global.Window
	}
	if s := l.subject(ctx); s.key != "" {
		e.User = digest(s.key, 6)
	}
	return e
}

// Info returns how the user with that identity stands, without charging
// anybody: Allowed and RetryAfter speak of a request of cost 1. With Redis it
// is one round trip. For an empty user it speaks of [Config.Anonymous] if
// there is one, and of the global limit otherwise.
func (l *Limiter) Info(ctx context.Context, user string) (Decision, error) {
	if l.off.Load() {
		return Decision{Allowed: true}, nil
	}
	s := l.named(user)
	o, err := l.store.peek(ctx, s)
	if err != nil {
		return Decision{}, err
	}
	return l.decision(s, &o), nil
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

// Stats is a snapshot of a limiter's counters since it was started.
type Stats struct {
	Admitted      uint64 // by the limits or by OnRedisFailure
	RefusedUser   uint64
	RefusedGlobal uint64
	RefusedDown   uint64 // under Closed
	Bypassed      uint64

	LeaseHits   uint64 // admitted from a lease
	Remembered  uint64 // refused without asking Redis again
	RedisCalls  uint64 // decisions and looks that asked Redis
	RedisErrors uint64 // of RedisCalls, those that failed or took too long
	Degraded    uint64 // decided by OnRedisFailure

	Down     bool   // OnRedisFailure decides at present
	Keys     int    // identities held in memory
	Overflow uint64 // decisions on a shared log for want of room: see Config.MaxKeys
}

// Stats returns the counters. They are not of one instant.
func (l *Limiter) Stats() Stats {
	st := Stats{
		Admitted:      l.admitted.Load(),
		RefusedUser:   l.refusedUser.Load(),
		RefusedGlobal: l.refusedGlobal.Load(),
		RefusedDown:   l.refusedDown.Load(),
		Bypassed:      l.bypassed.Load(),
	}
	l.store.stats(&st)
	return st
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

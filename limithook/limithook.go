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
	"sync"
	"sync/atomic"
)

// maxCost is the highest cost of one request. Charging is linear in it, on
// the Redis server too.
const maxCost = 10_000

// Limiter decides whether a request may pass. It is safe for concurrent use.
type Limiter struct {
	cfg       Config // as it was started with; the limits in force are in terms
	terms     atomic.Pointer[terms]
	memory    *memory  // counts in this process; nil with Redis
	shared    *shared  // counts in Redis; nil without
	anonymous *subject // who stands for nobody; nil: nobody does
	off       atomic.Bool

	changing sync.Mutex   // held while the limits are changed
	changed  func() error // called after a change; nil: nobody

	admitted, bypassed, refusedDown atomic.Uint64
	refused                         [maxRules + 2]atomic.Uint64 // by place of the limit
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
	cfg = cfg.withDefaults()
	if cfg.Disabled {
		return idleLimiter(cfg), nil
	}
	l := &Limiter{cfg: cfg}
	if cfg.Anonymous != "" {
		a := newSubject("a:", cfg.Anonymous)
		l.anonymous = &a
	}
	if cfg.Redis == nil {
		l.memory = newMemory(cfg, clock)
	} else {
		l.shared = newShared(cfg, clock)
	}
	l.terms.Store(newTerms(cfg))
	return l, nil
}

// idleLimiter admits everything.
func idleLimiter(cfg Config) *Limiter {
	l := &Limiter{cfg: cfg}
	l.terms.Store(&terms{limits: make([]limit, 2)})
	l.off.Store(true)
	return l
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
func (l *Limiter) Decide(ctx context.Context, n int) (d Decision, err error) {
	err = l.decide(ctx, l.subject(ctx), nil, n, &d)
	return d, err
}

// decide decides on a request, or on a statement if st is not nil. d, which it
// fills, is empty before.
func (l *Limiter) decide(ctx context.Context, s *subject, st *Statement, n int, d *Decision) error {
	t := l.terms.Load()
	switch {
	case s.bypass:
		l.bypassed.Add(1)
		d.Allowed = true
		return nil
	case !t.any || l.off.Load():
		l.admitted.Add(1)
		d.Allowed = true
		return nil
	case t.ruled && !s.alone:
		var keys [maxRules]string
		return l.decideBy(ctx, t, s, t.keysOf(ctx, st, keys[:0]), n, d)
	}
	return l.decideBy(ctx, t, s, nil, n, d)
}

func (l *Limiter) decideBy(ctx context.Context, t *terms, s *subject, keys []string, n int, d *Decision) error {
	if n != 1 {
		if err := t.checkCost(s, keys, n); err != nil {
			return err
		}
	}
	var o outcome
	if l.shared != nil {
		if err := l.shared.decide(ctx, t, s, keys, n, &o); err != nil {
			return err
		}
	} else {
		l.memory.run(t, s, keys, n, true, &o)
	}
	o.decision(d)
	d.unix = l.cfg.UnixReset
	if !o.counted {
		l.count(&o)
	}
	if l.cfg.Shadow {
		d.quiet = true
		d.Allowed, d.Shadowed = true, !o.ok
	}
	return nil
}

func (l *Limiter) count(o *outcome) {
	switch {
	case o.ok:
		l.admitted.Add(1)
	case o.limit != nil:
		l.refused[o.limit.place].Add(1)
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

// Close gives unspent leases back to Redis and stops what the limiter started,
// which can take as long as the client's own timeouts if Redis hangs. The
// client stays open. Afterwards everything is admitted. It may be called more
// than once.
func (l *Limiter) Close() error {
	if !l.off.Swap(true) && l.shared != nil {
		l.changing.Lock()
		defer l.changing.Unlock()
		l.shared.close(l.terms.Load())
	}
	return nil
}

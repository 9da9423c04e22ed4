package limithook

import (
	"context"
	"time"
)

// Decision is the answer to one request. Its numbers are those of the limit
// that refused or, if none did, of the user's limit where there is one and of
// the global one otherwise. Limit 0 means that no limit applies.
type Decision struct {
	Allowed bool
	Scope   Scope
	Limit   int
	Window  time.Duration
	// Remaining is how many more requests of cost 1 would be admitted now.
	// While leases are spent it is the knowledge of the last answer of Redis
	// less what was spent here since.
	Remaining int
	// RetryAfter is how long to wait until the same request is admitted if
	// nobody else comes: exactly, never less; 0 if it was admitted.
	RetryAfter time.Duration
	// ResetAfter is how long until Remaining next grows, which is when the
	// oldest request leaves the window; 0 when nothing is charged.
	ResetAfter time.Duration
	// Degraded says that Redis did not answer and OnRedisFailure decided.
	Degraded bool
	// Waited is how long the decision waited for Redis.
	Waited time.Duration

	cause error
}

// limitsUser reports whether a limit of its own holds the subject.
func (l *Limiter) limitsUser(s *subject) bool {
	return s.key != "" && !l.cfg.PerUser.IsZero()
}

func (l *Limiter) decision(s *subject, o *outcome) Decision {
	user := l.limitsUser(s)
	switch {
	case !o.ok && o.user.wait == 0 && o.global.wait == 0:
		return Decision{
			Scope: ScopeUnavailable, RetryAfter: recheck, Degraded: o.degraded, Waited: time.Duration(o.waited), cause: o.cause,
		}
	case o.degraded && l.cfg.OnRedisFailure == Open: // no limit was asked
		return Decision{Allowed: true, Degraded: true, Waited: time.Duration(o.waited)}
	case user && (o.ok || o.user.wait >= o.global.wait):
		return l.of(ScopeUser, o)
	}
	return l.of(ScopeGlobal, o)
}

// of tells the outcome by the numbers of one limit.
func (l *Limiter) of(scope Scope, o *outcome) Decision {
	limit, at := l.cfg.Global, &o.global
	if scope == ScopeUser {
		limit, at = l.cfg.PerUser, &o.user
	}
	if o.degraded {
		limit = part(limit, l.cfg.Instances)
	}
	return Decision{
		Allowed: o.ok, Scope: scope, Limit: limit.Max, Window: limit.Window, Remaining: at.remaining,
		RetryAfter: time.Duration(at.wait), ResetAfter: time.Duration(at.reset),
		Degraded: o.degraded, Waited: time.Duration(o.waited),
	}
}

// Refusal makes the error of a decision that refused what was done with ctx.
func (l *Limiter) Refusal(ctx context.Context, d Decision) *Error {
	return l.refusal(l.subject(ctx), d)
}

func (l *Limiter) refusal(s *subject, d Decision) *Error {
	if d.Scope == "" { // a decision that was never made
		d.Scope, d.RetryAfter = ScopeUnavailable, recheck
	}
	retry := roundUp(d.RetryAfter)
	e := &Error{
		Scope:      d.Scope,
		Limit:      d.Limit,
		Window:     d.Window,
		Remaining:  d.Remaining,
		RetryAfter: retry,
		Reset:      time.Now().Add(retry),
		cause:      d.cause,
	}
	if s.key != "" {
		e.User = digest(s.key, 6)
	}
	return e
}

// roundUp returns d in whole microseconds, never less: a shorter text, and no
// retry comes too early.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Microsecond - 1).Truncate(time.Microsecond)
}

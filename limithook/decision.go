package limithook

import (
	"context"
	"time"
)

// Decision is the answer to one request. Its numbers are those of the limit
// that refused, the one with the longest wait, or if none did of the user's limit
// where there is one, else of the first [Rule] that applies, else of the global
// one. Limit 0 means that no limit applies.
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
	// Shadowed says that the limits refused, and that [Config.Shadow] admitted all
	// the same.
	Shadowed bool
	// Waited is how long the decision waited for Redis.
	Waited time.Duration

	cause error
	quiet bool // nothing is told to clients
	unix  bool // see Config.UnixReset
}

// outcome is a store's answer, in nanoseconds.
type outcome struct {
	ok       bool
	degraded bool   // OnRedisFailure decided
	counted  bool   // by the store
	limit    *limit // whose numbers follow; nil: no limit was asked
	standing
	cause  error // why, when refused under Closed
	waited int64 // for Redis
}

// tell takes in how an account stands, those of a decision in their order. The
// numbers are those of the first, or of the one that refuses for the longest. Of
// a mere look they are those of the first, with the longest wait of all.
func (o *outcome) tell(l *limit, s *standing, look bool) {
	switch {
	case o.limit == nil:
		o.limit, o.standing = l, *s
	case s.wait <= o.wait:
	case look:
		o.wait = s.wait
	default:
		o.limit, o.standing = l, *s
	}
}

func (o *outcome) decision(d *Decision) {
	d.Allowed, d.Degraded, d.Waited = o.ok, o.degraded, time.Duration(o.waited)
	switch l := o.limit; {
	case l != nil:
		d.Scope, d.Limit, d.Window = l.scope, l.Max, l.Window
		d.Remaining, d.RetryAfter, d.ResetAfter = o.remaining, time.Duration(o.wait), time.Duration(o.reset)
	case !o.ok:
		d.Scope, d.RetryAfter, d.cause = ScopeUnavailable, retryUnavailable, o.cause
	}
}

// Refusal makes the error of a decision that refused what was done with ctx.
func (l *Limiter) Refusal(ctx context.Context, d Decision) *Error {
	return l.refusal(l.subject(ctx), d)
}

func (l *Limiter) refusal(s *subject, d Decision) *Error {
	if d.Scope == "" { // a decision that was never made
		d.Scope, d.RetryAfter = ScopeUnavailable, retryUnavailable
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
		unix:       d.unix,
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

package limithook

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrLimited matches every refusal: errors.Is(err, ErrLimited).
	ErrLimited = errors.New("limithook: limit reached")

	// ErrUnavailable matches the refusals made under [Closed] because Redis
	// did not answer. They match ErrLimited too.
	ErrUnavailable = errors.New("limithook: limits cannot be checked")

	// ErrCost matches a request whose cost is not positive, or so high that
	// no amount of waiting would let it pass. It does not match ErrLimited.
	ErrCost = errors.New("limithook: impossible cost")
)

// Scope names the limit that a decision speaks of.
type Scope string

const (
	ScopeUser        Scope = "user"
	ScopeGlobal      Scope = "global"
	ScopeUnavailable Scope = "unavailable" // refused under Closed: no limit was asked
)

// Error is a refusal. It holds no identity, so it may be logged. Its text is not for
// clients: it has the numbers of every limit, and why Redis is not in use. See
// [WriteRefusal].
type Error struct {
	Scope     Scope
	Limit     int           // of the scope
	Window    time.Duration // of the scope
	Remaining int           // what a cheaper request could still use; 0 for one of cost 1

	// RetryAfter is how long to wait until the same request is admitted if
	// nobody else comes, rounded up to a microsecond.
	RetryAfter time.Duration
	// Reset is that instant on the clock of this machine.
	Reset time.Time

	// User is a short hash of the identity, equal for equal identities, for
	// finding the refusals of one user in a log. Empty without an identity.
	User string

	cause error // why Redis could not answer
	unix  bool  // see Config.UnixReset
}

func (e *Error) Error() string {
	if e.Scope == ScopeUnavailable {
		if e.cause != nil {
			return fmt.Sprintf("%v, retry after %v: %v", ErrUnavailable, e.RetryAfter, e.cause)
		}
		return fmt.Sprintf("%v, retry after %v", ErrUnavailable, e.RetryAfter)
	}
	return fmt.Sprintf("limithook: %s limit of %d per %v reached, retry after %v", e.Scope, e.Limit, e.Window, e.RetryAfter)
}

// Unwrap gives the sentinels that the refusal matches and its cause.
func (e *Error) Unwrap() []error {
	if e.Scope != ScopeUnavailable {
		return []error{ErrLimited}
	}
	if e.cause != nil {
		return []error{ErrLimited, ErrUnavailable, e.cause}
	}
	return []error{ErrLimited, ErrUnavailable}
}

package hook

import (
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/scope"
)

// contact is when the work of a scope last learned what a database holds. A cache
// that other processes write under must have heard of all that was written before,
// or ask: the work would go back behind what it has seen.
type contact struct{ at atomic.Int64 } // a Moment; 0: never

var contacts = scope.NewSlot(func(*scope.Scope) *contact { return &contact{} })

func (c *contact) note(m Moment) {
	at := max(int64(m), 1)
	for last := c.at.Load(); last < at && !c.at.CompareAndSwap(last, at); {
		last = c.at.Load()
	}
}

// Touch notes that the work of s has learned, just now and otherwise than by a
// statement, what a database holds: from a token of a session elsewhere.
func Touch(s *scope.Scope) { contacts.Get(s).note(Now()) }

// SinceContact returns how long ago the work of s last learned what a database
// holds; false if it never has, or s is nil.
func SinceContact(s *scope.Scope) (ago time.Duration, ok bool) {
	if s == nil {
		return 0, false
	}
	c := contacts.Peek(s)
	if c == nil {
		return 0, false
	}
	at := c.at.Load()
	return Now().Sub(Moment(at)), at != 0
}

// touch notes what a finished statement has shown. Without a server nobody asks.
func (r *Record) touch() {
	if r.Scope == nil || r.stages.server == nil || r.Outcome == Refused {
		return
	}
	shown := r.Start.Add(r.Duration)
	if r.Outcome != Database && r.Shown != 0 {
		shown = min(shown, r.Shown)
	}
	contacts.Get(r.Scope).note(shown)
}

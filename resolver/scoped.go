package resolver

import (
	"sync"

	"github.com/gorminfra/infra/internal/scope"
)

// scoped is the sessions of one scope, one for each Resolver: what was written
// to one database says nothing of another.
type scoped struct {
	mu       sync.Mutex // guards sessions
	sessions map[*Resolver]*session
}

var slot = scope.NewSlot(func(*scope.Scope) *scoped { return &scoped{} })

// sessionOf returns the session of s, or that of the process without one. It is
// nil for a scope that has written nothing, unless it is to be made.
func (r *Resolver) sessionOf(s *scope.Scope, create bool) *session {
	if s == nil {
		return &r.process
	}
	if !create && slot.Peek(s) == nil {
		return nil
	}
	in := slot.Get(s)
	in.mu.Lock()
	defer in.mu.Unlock()
	own := in.sessions[r]
	if own == nil && create {
		if in.sessions == nil {
			in.sessions = make(map[*Resolver]*session, 1)
		}
		own = &session{}
		in.sessions[r] = own
	}
	return own
}

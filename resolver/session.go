package resolver

import "sync/atomic"

// session is what a chain of work must see of its own doing. It is safe for
// concurrent use; the zero value has written nothing.
type session struct {
	wrote atomic.Int64 // the latest time at which a write of it had returned; 0: none
}

// note remembers that a write had been committed, or may have been, at now.
func (s *session) note(now int64) {
	for {
		old := s.wrote.Load()
		if old >= now || s.wrote.CompareAndSwap(old, now) {
			return
		}
	}
}

// floor is the time that a node's state must be younger than. A sample of the
// primary that started after a commit had returned lies at or above that
// commit, so one shared sample stands for all commits before it, and writers
// pay nothing.
func (s *session) floor() int64 {
	if s == nil {
		return 0
	}
	return s.wrote.Load()
}

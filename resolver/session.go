package resolver

import (
	"database/sql"
	"sync"
	"sync/atomic"
)

// session is what a chain of work must see: its own writes, and what it has been
// shown. It is safe for concurrent use; the zero value has done nothing.
//
// The session of the process, which is that of all work without a scope, knows
// writes only. Its readers are strangers to each other: if what one was shown
// bound all of them, they would all have to stay on one node.
type session struct {
	wrote atomic.Int64 // the latest time at which a write of it had returned; 0: none

	doubt atomic.Int64 // until when a write of it may be committed unseen; 0: none

	mu      sync.Mutex // guards the rest
	open    map[*sql.Conn]int64
	shown   glimpse
	reading int     // results whose rows are still being read
	rows    *node   // where all of them are; nil: on several
	rowsRun uint64  // of rows
	handed  *handed // what tokens told; nil: none came
	brought string  // marks the writers' cookies that came

	last    *node  // where the last read that has ended was; nil: not on a node
	lastRun uint64 // of last
	other   int64  // when the last read had ended that was not on last

	wait wait
}

// glimpse is a bound to what a session's reads have shown.
//
// A replica that was read may have been ahead of its last probe, so what the
// probe said is no bound. Two things are: the replica itself, which only goes
// forward while it runs, and any sample of the primary that was sent after the
// read had ended.
type glimpse struct {
	at    int64  // when the last read had ended; 0: none has
	on    *node  // the replica that is ahead of all that was shown; nil: only the primary surely is
	run   uint64 // of on
	since int64  // when on was last chosen
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
// pay nothing. While a commit may happen unseen, only what is as young as now
// will do.
func (s *session) floor(now int64) int64 {
	if s == nil {
		return 0
	}
	return max(s.wrote.Load(), min(s.doubt.Load(), now))
}

// look returns what the session was shown, what tokens told it, and the time that
// another node's state must be younger than for a read that begins at now: while
// the rows of a result are being read, they may show what is as young as now.
func (s *session) look(now int64) (seen glimpse, behind int64, h *handed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	behind = s.shown.at
	if s.reading > 0 {
		behind = now
	}
	return s.shown, behind, s.handed
}

// choose notes that a read goes to n, which was fit for it when the session was
// as seen says: reads that begin before this one has ended go there too. When
// another read has ended elsewhere meanwhile, n may be behind that one, and is
// not noted.
// rows: the caller is shown the result before it has ended.
func (s *session) choose(n *node, run uint64, seen glimpse, now int64, rows bool) {
	if !rows && (n.isPrimary() || n == seen.on) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &s.shown
	same := g.at == seen.at && g.on == seen.on && g.run == seen.run
	// What has ended since then was on n, too.
	ahead := s.last == n && s.lastRun == run && s.other <= seen.at
	// What is still being read must be, or its later rows may be ahead.
	there := s.reading == 0 || s.rows == n && s.rowsRun == run
	if !n.isPrimary() && there && (same || ahead) {
		g.on, g.run, g.since = n, run, now
		s.wait = wait{}
	}
	if rows {
		if s.reading == 0 {
			s.rows, s.rowsRun = n, run
		} else if !there {
			s.rows = nil
		}
		s.reading++
		if g.on != n {
			g.on = nil
		}
	}
}

// saw notes that a read on n has ended at now; rows as for choose.
func (s *session) saw(n *node, now int64, rows bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rows {
		s.reading = max(s.reading-1, 0)
	}
	g, run := &s.shown, n.run.Load()
	if s.last != n || s.lastRun != run {
		s.last, s.lastRun, s.other = n, run, g.at
	}
	switch {
	case g.on == n && g.run == run:
	case g.at == 0 && g.on == nil && s.reading == 0 && !n.isPrimary():
		g.on, g.run = n, run
	default:
		g.on = nil
	}
	g.at = max(g.at, now)
	g.since = g.at
}

// showedNothing notes that a result whose rows were to be read has none.
func (s *session) showedNothing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = max(s.reading-1, 0)
}

// recalled notes that the session was shown what had been read from some node by
// the time at.
func (s *session) recalled(at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &s.shown
	if g.on != nil && g.on.fresh.Load() <= at {
		g.on = nil
	}
	g.at = max(g.at, at)
	s.other = max(s.other, at)
}

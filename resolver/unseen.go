package resolver

import (
	"database/sql"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// unseenFor is how long a session stays on the primary after a write in what may
// be a transaction whose end nobody tells: one that a program began on a
// connection of db.Connection, or a *sql.Tx of its own. A sample of the primary
// between the statement and its COMMIT proves nothing. Where COMMIT or ROLLBACK
// is sent as a text on that connection, it ends then. A transaction that goes on
// for longer after its last write can be read behind. The cache distrusts such a
// write for the same time.
const unseenFor = 5 * time.Second

// suspect notes a write on conn that may be committed as late as unseenFor from
// now; nil stands for all that is not a connection of db.Connection.
func (s *session) suspect(conn *sql.Conn, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := now + int64(unseenFor)
	for c, end := range s.open {
		if end < now {
			delete(s.open, c) // doubt is as late at least
		}
	}
	if s.open == nil {
		s.open = make(map[*sql.Conn]int64, 1)
	}
	s.open[conn] = until
	s.doubt.Store(until)
}

// settle notes that what was written on conn has been committed, or was not, by
// now.
func (s *session) settle(conn *sql.Conn, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[conn]; !ok {
		return
	}
	delete(s.open, conn)
	s.note(now)
	latest := int64(0)
	for _, end := range s.open {
		latest = max(latest, end)
	}
	s.doubt.Store(latest)
}

// settleUnseen looks whether a statement ended such a transaction. If another
// session than the one that wrote sends it, the one that wrote waits out its time.
func (r *Resolver) settleUnseen(rec *hook.Record) {
	if rec.Err != nil || !endsTransaction(rec.Text) {
		return
	}
	now := r.now()
	if s := r.sessionOf(optionsOf(rec.Context), rec.Scope, false); s != nil {
		s.settle(rec.Held(), now)
	}
	r.process.settle(rec.Held(), now)
	r.unscoped.settle(rec.Held(), now)
}

func endsTransaction(text *sqltext.Statement) bool {
	if text == nil || text.Multiple {
		return false
	}
	switch text.Operation {
	case sqltext.Commit:
		return !strings.HasPrefix(strings.ToLower(text.Shape), "prepare") // PREPARE TRANSACTION leaves it open
	case sqltext.Rollback:
		return true
	}
	return false
}

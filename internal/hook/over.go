package hook

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/sqltext"
)

// overOf returns what tells whether the transaction is over that somebody else
// began and that this write is in, or nil.
func (r *Record) overOf() func() bool {
	if conn := r.Held(); conn != nil {
		return r.stages.hub.begun.over(conn)
	}
	pool := r.orig
	if p, ok := pool.(*gorm.PreparedStmtTX); ok {
		pool = p.Tx
	}
	p, ok := pool.(*sql.Tx)
	if !ok || p == nil || r.Where != Foreign {
		return nil
	}
	return func() bool {
		// database/sql looks whether the transaction is done before it finds
		// that the statement is none of its own. Nothing reaches the driver.
		return errors.Is(p.StmtContext(context.Background(), &sql.Stmt{}).Close(), sql.ErrTxDone)
	}
}

// byHand notes a transaction that is begun or ended by its text on a connection
// of db.Connection. An end counts also when it fails: the transaction is lost.
func (r *Record) byHand() {
	conn := r.Held()
	switch {
	case conn == nil:
	case r.Text.Opens:
		r.stages.hub.begun.begin(conn)
	case r.Text.Commits, r.Text.Operation == sqltext.Rollback:
		r.stages.hub.begun.end(conn)
	}
}

// maxByHand is how long an end that nobody has seen is waited for.
const maxByHand = time.Minute

// begunByHand are the transactions that were begun by the text BEGIN.
type begunByHand struct {
	mu    sync.Mutex // guards since
	since map[*sql.Conn]time.Time
}

func (b *begunByHand) begin(conn *sql.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c, since := range b.since {
		if time.Since(since) > maxByHand {
			delete(b.since, c)
		}
	}
	if b.since == nil {
		b.since = make(map[*sql.Conn]time.Time)
	}
	b.since[conn] = time.Now()
}

func (b *begunByHand) end(conn *sql.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.since, conn)
}

// over returns what tells whether the transaction on conn has ended, or nil when
// none was seen to begin.
func (b *begunByHand) over(conn *sql.Conn) func() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	began, ok := b.since[conn]
	if !ok {
		return nil
	}
	return func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		now, ok := b.since[conn]
		return !ok || !now.Equal(began) || time.Since(began) > maxByHand
	}
}

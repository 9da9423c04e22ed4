package hook

import (
	"context"
	"database/sql"

	"gorm.io/gorm"
)

// sendOnce returns the pool for a write that commits by itself: one connection
// of db. Through db itself, database/sql sends a statement again on
// driver.ErrBadConn, and pgx's stdlib gives that for a connection that was lost
// after it had sent the statement, where it used the simple protocol: for every
// Exec without arguments. The write would happen twice.
//
// Prepared statements go by the extended protocol, where pgx tells the truth.
func (r *Record) sendOnce(ctx context.Context, pool gorm.ConnPool) (gorm.ConnPool, error) {
	db, ok := pool.(*sql.DB)
	if !ok || r.Access != Write {
		return pool, nil
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		r.sent = false
		return nil, err
	}
	r.release()
	r.setRare().conn = conn
	return conn, nil
}

// release gives back the connection of sendOnce. It waits for Rows on it.
func (r *Record) release() {
	conn := r.few().conn
	if conn == nil {
		return
	}
	r.rare.conn = nil
	if r.rows != nil {
		go conn.Close() // inside Rows.Close, which it waits for
		return
	}
	_ = conn.Close()
}

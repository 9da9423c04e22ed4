package slowlog

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// ownPool is the pool below a node, from which a connection of one's own can be
// had; nil when GORM was opened over a transaction or a single connection.
func ownPool(n *hook.Node) *sql.DB {
	if n == nil {
		return nil
	}
	switch p := n.Pool().(type) {
	case *sql.DB:
		return p
	case gorm.GetDBConnector:
		db, err := p.GetDBConn()
		if err != nil {
			return nil
		}
		return db
	}
	return nil
}

// spare waits until the pool has a connection to spare, and reports false when ctx
// ends before. It does not stand in the pool's queue: the traffic comes first.
func spare(ctx context.Context, pool *sql.DB) bool {
	tick := time.NewTicker(sparePoll)
	defer tick.Stop()
	for {
		if ctx.Err() != nil {
			return false
		}
		if s := pool.Stats(); s.MaxOpenConnections <= 0 || s.InUse < s.MaxOpenConnections {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// readOnly calls f in a transaction that is read only and always rolled back. A
// connection that cannot roll back is thrown away.
func readOnly(ctx context.Context, conn *sql.Conn, f func(*sql.Tx) error) error {
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	err = f(tx)
	if rollback := tx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		err = errors.Join(err, rollback)
	}
	return err
}

// queryPrepared runs text as a prepared statement, with or without parameters:
// that is the extended protocol, which refuses a second statement in the text,
// whatever the driver's mode.
func queryPrepared(ctx context.Context, on interface {
	PrepareContext(context.Context, string) (*sql.Stmt, error)
}, text string, args []any, read func(*sql.Rows) error) error {
	stmt, err := on.PrepareContext(ctx, text)
	if err != nil {
		return err
	}
	defer stmt.Close() //nolint:errcheck // nothing depends on it
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return errors.Join(read(rows), rows.Err(), rows.Close())
}

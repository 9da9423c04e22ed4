package hook

import (
	"context"
	"database/sql"
	"fmt"

	"gorm.io/gorm"
)

// Pool stands in front of the physical pools, as Config.ConnPool or inside
// GORM's PreparedStmtDB. GORM tells a pool from a transaction by the methods
// Commit and Rollback, so it must not have them.
type Pool struct {
	hub  *Hub
	hint Hint // of dbresolver's clauses, for a Begin
}

var (
	_ gorm.ConnPool         = (*Pool)(nil)
	_ gorm.ConnPoolBeginner = (*Pool)(nil)
	_ gorm.GetDBConnector   = (*Pool)(nil)
)

// direct makes the record of a statement that came without GORM's callbacks.
func (p *Pool) direct(ctx context.Context) *Record {
	r := p.hub.newRecord(p.hub.stages.Load(), Direct, p.hub.root, p)
	r.Context = ctx
	if outer, ok := ctx.Value(outerKey{}).(*Record); ok {
		r.setRare().outer, r.Quiet = outer, true
	}
	return r
}

// PrepareContext prepares on the primary. What is done with the statement is
// not seen: neither routed, limited, nor taken for an invalidation.
func (p *Pool) PrepareContext(ctx context.Context, text string) (*sql.Stmt, error) {
	return p.hub.Primary().physical.PrepareContext(ctx, text)
}

// ExecContext implements gorm.ConnPool.
func (p *Pool) ExecContext(ctx context.Context, text string, args ...any) (res sql.Result, err error) {
	r := p.direct(ctx)
	completed := false
	defer func() {
		r.Err = err
		r.finish(completed)
	}()
	res, err = r.exec(ctx, text, args)
	completed = true
	return res, err
}

// QueryContext implements gorm.ConnPool.
func (p *Pool) QueryContext(ctx context.Context, text string, args ...any) (rows *sql.Rows, err error) {
	r := p.direct(ctx)
	completed := false
	defer func() {
		r.Err = err
		if completed && r.handOver() {
			return
		}
		r.finish(completed)
	}()
	rows, err = r.query(ctx, text, args)
	completed = true
	return rows, err
}

// QueryRowContext implements gorm.ConnPool.
func (p *Pool) QueryRowContext(ctx context.Context, text string, args ...any) (row *sql.Row) {
	r := p.direct(ctx)
	completed := false
	defer func() {
		if row != nil {
			r.Err = row.Err()
		}
		if completed && r.handOver() {
			return
		}
		r.finish(completed)
	}()
	row = r.queryRow(ctx, text, args)
	completed = true
	return row
}

// BeginTx begins on the node that the router chooses. On an error the returned
// pool is a nil *Tx, as database/sql's own nil *sql.Tx is: a bare nil would make
// a deferred Rollback add "invalid transaction" to the error.
func (p *Pool) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	if ctx.Value(explainingKey{}) != nil { // of a session that brought its own pool
		return (*Tx)(nil), errExplained
	}
	st := p.hub.stages.Load()
	node := p.hub.Primary()
	hint := p.hint
	if st.router != nil {
		hint = st.freshTx(ctx, hint)
		var err error
		if node, err = st.router.RouteTx(ctx, opts, hint); err != nil {
			return (*Tx)(nil), err
		}
	}
	tx, err := begunTx(ctx, st, node, opts)
	if err != nil {
		if tx, err = beginAgain(ctx, st, node, opts, hint, err); err != nil {
			return tx, err
		}
	}
	tx.(*Tx).opening.open(hint)
	return tx, nil
}

func begunTx(ctx context.Context, st *stages, node *Node, opts *sql.TxOptions) (gorm.ConnPool, error) {
	physical, err := beginAt(ctx, st, node, opts)
	if err != nil {
		return (*Tx)(nil), err
	}
	return newTx(ctx, st, node, physical, opts, newOpening(st, opts)), nil
}

// GetDBConn returns a *sql.DB, for db.DB() and db.Connection: that of the primary
// of now, since they must not reach one that was superseded, or, with dbresolver's
// clauses, of the node that they name.
func (p *Pool) GetDBConn() (*sql.DB, error) {
	if p.hint != (Hint{}) {
		if t, ok := p.hub.stages.Load().router.(Placer); ok {
			if n := t.Place(p.hint); n != nil {
				return dbConnOf(n.physical)
			}
		}
	}
	return dbConnOf(p.hub.Primary().physical)
}

// Ping pings the primary.
func (p *Pool) Ping() error { return pingOf(p.hub.Primary().physical) }

// Conn is a connection of db.Connection with transactions that are seen.
type Conn struct {
	*sql.Conn
	hub *Hub
}

// BeginTx begins on the pinned connection.
func (c *Conn) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	physical, err := physicalTx(ctx, c.Conn, opts)
	if err != nil {
		return (*Tx)(nil), err
	}
	return newTx(ctx, c.hub.stages.Load(), c.hub.Primary(), physical, opts, nil), nil
}

func beginOn(ctx context.Context, pool gorm.ConnPool, opts *sql.TxOptions) (gorm.ConnPool, error) {
	switch b := pool.(type) {
	case gorm.TxBeginner:
		tx, err := b.BeginTx(ctx, opts)
		return tx, err
	case gorm.ConnPoolBeginner:
		return b.BeginTx(ctx, opts)
	}
	return (*Tx)(nil), fmt.Errorf("hook: %T begins no transactions: %w", pool, gorm.ErrInvalidTransaction)
}

func dbConnOf(pool gorm.ConnPool) (*sql.DB, error) {
	switch p := pool.(type) {
	case *sql.DB:
		return p, nil
	case gorm.GetDBConnector:
		return p.GetDBConn()
	}
	return nil, gorm.ErrInvalidDB
}

func pingOf(pool gorm.ConnPool) error {
	if p, ok := pool.(interface{ Ping() error }); ok {
		return p.Ping()
	}
	return nil
}

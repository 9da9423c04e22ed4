package hook

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/replay"
)

// Tx is a transaction on one node whose end is told to the parts. It must not
// have BeginTx, by which GORM would take it for a pool. A nil *Tx stands for a
// transaction that could not begin.
type Tx struct {
	gorm.Tx // the physical one
	txn     *Txn
	hub     *Hub
	stop    func() bool // takes back the watch of the context
	opening *opening    // nil: it stays where it began

	prepared atomic.Pointer[gorm.PreparedStmtTX]
	ddl      atomic.Int32 // DDL statements run in it
}

var (
	_ gorm.Tx             = (*Tx)(nil)
	_ gorm.GetDBConnector = (*Tx)(nil)
)

// newTx makes the transaction that has begun as physical on node.
func newTx(ctx context.Context, st *stages, node *Node, physical gorm.Tx, opts *sql.TxOptions, o *opening) *Tx {
	t := &Tx{
		Tx: physical, hub: node.hub, opening: o,
		txn: &Txn{Context: ctx, Node: node, ReadOnly: opts != nil && opts.ReadOnly, stages: st},
	}
	t.txn.tx = t
	if len(st.txns) > 0 {
		t.txn.begin()
		if ctx.Done() != nil {
			// database/sql rolls back by itself when the context ends, and a
			// program need not call Rollback then.
			t.stop = context.AfterFunc(ctx, func() {
				t.opening.settle()
				t.txn.cancelled()
			})
		}
	}
	return t
}

// Unwrap returns the *sql.Tx below, or nil.
func (t *Tx) Unwrap() *sql.Tx {
	if t == nil {
		return nil
	}
	t.opening.settle()
	tx, _ := t.Tx.(*sql.Tx)
	return tx
}

// direct notes what reaches the transaction without GORM's callbacks, and returns what
// is to be called when it has run.
func (t *Tx) direct(ctx context.Context, text string) (ran func(error), err error) {
	t.opening.settle()
	r := Record{Where: InTxn, Txn: t.txn, stages: t.txn.stages}
	r.reach(ctx, text, nil)
	err = r.beforeWrite(ctx)
	return func(err error) { r.endPart(true, err) }, err
}

// ExecContext implements gorm.ConnPool.
func (t *Tx) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if t == nil {
		return nil, gorm.ErrInvalidTransaction
	}
	ran, err := t.direct(ctx, text)
	if err != nil {
		return nil, err
	}
	res, err := t.Tx.ExecContext(ctx, text, args...)
	ran(err)
	return res, err
}

// QueryContext implements gorm.ConnPool.
func (t *Tx) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if t == nil {
		return nil, gorm.ErrInvalidTransaction
	}
	ran, err := t.direct(ctx, text)
	if err != nil {
		return nil, err
	}
	rows, err := t.Tx.QueryContext(ctx, text, args...)
	ran(err)
	return rows, err
}

// QueryRowContext implements gorm.ConnPool. On a nil Tx it returns nil, since
// there is nothing that could carry the error; GORM never calls it there.
func (t *Tx) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if t == nil {
		return nil
	}
	ran, err := t.direct(ctx, text)
	if err != nil {
		return replay.ErrorRow(err)
	}
	row := t.Tx.QueryRowContext(ctx, text, args...)
	ran(row.Err())
	return row
}

// PrepareContext implements gorm.ConnPool. The text counts as run: the
// statement may be, without our seeing it.
func (t *Tx) PrepareContext(ctx context.Context, text string) (*sql.Stmt, error) {
	if t == nil {
		return nil, gorm.ErrInvalidTransaction
	}
	ran, err := t.direct(ctx, text)
	if err != nil {
		return nil, err
	}
	stmt, err := t.Tx.PrepareContext(ctx, text)
	ran(err)
	return stmt, err
}

// StmtContext implements gorm.Tx.
func (t *Tx) StmtContext(ctx context.Context, stmt *sql.Stmt) *sql.Stmt {
	if t == nil {
		return stmt
	}
	t.opening.settle()
	return t.Tx.StmtContext(ctx, stmt)
}

// GetDBConn returns the node's *sql.DB.
func (t *Tx) GetDBConn() (*sql.DB, error) {
	if t == nil {
		return nil, gorm.ErrInvalidDB
	}
	return dbConnOf(t.node().physical)
}

// Commit commits. The parts are asked before, if the transaction wrote, and told
// of the outcome before Commit returns. An error of a part rolls back.
func (t *Tx) Commit() error {
	if t == nil {
		return gorm.ErrInvalidTransaction
	}
	t.unwatch()
	t.opening.settle()
	ended := t.txn.Context.Err() != nil // database/sql then sends nothing
	if t.txn.startCommit() && !ended {
		if err := t.txn.beforeCommit(t.txn.Context); err != nil {
			err = errors.Join(err, ignoreDone(t.Tx.Rollback()))
			t.txn.end(RolledBack)
			return err
		}
	}
	err := t.Tx.Commit()
	outcome := commitOutcome(err)
	if err != nil && (ended || t.txn.ReadOnly && !t.txn.Wrote()) {
		outcome = RolledBack // there was nothing to commit
	}
	t.txn.end(outcome)
	return t.txn.stages.outcomeError(outcome, err)
}

// Rollback rolls back.
func (t *Tx) Rollback() error {
	if t == nil {
		return gorm.ErrInvalidTransaction
	}
	t.unwatch()
	t.opening.settle()
	err := t.Tx.Rollback()
	t.txn.end(RolledBack)
	return err
}

func (t *Tx) unwatch() {
	if t.stop != nil {
		t.stop()
	}
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// target is where a statement in the transaction runs: with prepared
// statements, through the node's own store. The store that GORM made belongs to
// no node, and database/sql refuses another pool's statement.
func (t *Tx) target(prepared bool) gorm.ConnPool {
	// A plan from before a DDL of this transaction would end it.
	if !prepared || t.ddl.Load() > 0 {
		return t.Tx
	}
	p := t.prepared.Load()
	if p == nil {
		p = &gorm.PreparedStmtTX{Tx: t.Tx, PreparedStmtDB: t.txn.Node.store()}
		t.prepared.Store(p)
	}
	return p
}

// text is what to send for text: after each DDL of the transaction another one,
// so that no plan from before is used.
func (t *Tx) text(text string) string {
	if n := t.ddl.Load(); n > 0 {
		return padded(text, 1+int(n-1)%maxPadding)
	}
	return text
}

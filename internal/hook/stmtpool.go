package hook

import (
	"context"
	"database/sql"

	"gorm.io/gorm"
)

// stmtPool is what Statement.ConnPool holds during one terminal callback
// outside transactions, stmtTx during one inside. Whoever keeps it longer (a
// session made by a GormValue) reaches the pool that it stood for.
type (
	stmtPool struct{ r *Record }
	stmtTx   struct{ r *Record }
)

var (
	_ gorm.ConnPool         = stmtPool{}
	_ gorm.ConnPoolBeginner = stmtPool{}
	_ gorm.GetDBConnector   = stmtPool{}
	_ gorm.Tx               = stmtTx{}
	_ gorm.GetDBConnector   = stmtTx{}
)

// statementPool is the pool to put on the statement. Both kinds hold one
// pointer, so that this allocates nothing.
func (r *Record) statementPool() gorm.ConnPool {
	if _, ok := r.orig.(gorm.TxCommitter); ok {
		return stmtTx{r}
	}
	return stmtPool{r}
}

func (p stmtPool) PrepareContext(ctx context.Context, text string) (*sql.Stmt, error) {
	return p.r.orig.PrepareContext(ctx, text)
}

func (p stmtPool) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if p.r.done.Load() {
		return p.r.orig.ExecContext(ctx, text, args...)
	}
	return p.r.exec(ctx, text, args)
}

func (p stmtPool) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if p.r.done.Load() {
		return p.r.orig.QueryContext(ctx, text, args...)
	}
	return p.r.query(ctx, text, args)
}

func (p stmtPool) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if p.r.done.Load() {
		return p.r.orig.QueryRowContext(ctx, text, args...)
	}
	return p.r.queryRow(ctx, text, args)
}

func (p stmtPool) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	return beginOn(ctx, p.r.orig, opts)
}

func (p stmtPool) GetDBConn() (*sql.DB, error) { return dbConnOf(p.r.orig) }
func (p stmtPool) Ping() error                 { return pingOf(p.r.orig) }

func (t stmtTx) orig() gorm.Tx {
	tx, _ := t.r.orig.(gorm.Tx)
	return tx
}

func (t stmtTx) PrepareContext(ctx context.Context, text string) (*sql.Stmt, error) {
	return stmtPool(t).PrepareContext(ctx, text)
}

func (t stmtTx) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return stmtPool(t).ExecContext(ctx, text, args...)
}

func (t stmtTx) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return stmtPool(t).QueryContext(ctx, text, args...)
}

func (t stmtTx) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	return stmtPool(t).QueryRowContext(ctx, text, args...)
}

func (t stmtTx) GetDBConn() (*sql.DB, error) { return dbConnOf(t.r.orig) }
func (t stmtTx) Ping() error                 { return pingOf(t.r.orig) }

func (t stmtTx) StmtContext(ctx context.Context, stmt *sql.Stmt) *sql.Stmt {
	if tx := t.orig(); tx != nil {
		return tx.StmtContext(ctx, stmt)
	}
	return stmt
}

func (t stmtTx) Commit() error {
	return t.r.orig.(gorm.TxCommitter).Commit()
}

func (t stmtTx) Rollback() error {
	return t.r.orig.(gorm.TxCommitter).Rollback()
}

package hook_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// nullDriver answers every statement at once, from a function.
type nullDriver struct {
	// answer returns columns and rows of a query.
	answer func(text string) ([]string, [][]driver.Value)
}

func (d nullDriver) Connect(context.Context) (driver.Conn, error) { return nullConn{d}, nil }
func (d nullDriver) Driver() driver.Driver                        { return d }
func (d nullDriver) Open(string) (driver.Conn, error)             { return nullConn{d}, nil }

type nullConn struct{ d nullDriver }

func (c nullConn) Prepare(text string) (driver.Stmt, error) { return nullStmt{c.d, text}, nil }
func (nullConn) Close() error                               { return nil }
func (nullConn) Begin() (driver.Tx, error)                  { return nullTx{}, nil }
func (nullConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return nullTx{}, nil
}
func (nullConn) CheckNamedValue(*driver.NamedValue) error { return nil }
func (nullConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

func (c nullConn) QueryContext(_ context.Context, text string, _ []driver.NamedValue) (driver.Rows, error) {
	columns, rows := c.d.answer(text)
	return &nullRows{columns, rows}, nil
}

type nullStmt struct {
	d    nullDriver
	text string
}

func (nullStmt) Close() error                               { return nil }
func (nullStmt) NumInput() int                              { return -1 }
func (nullStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (s nullStmt) Query([]driver.Value) (driver.Rows, error) {
	columns, rows := s.d.answer(s.text)
	return &nullRows{columns, rows}, nil
}

type nullTx struct{}

func (nullTx) Commit() error   { return nil }
func (nullTx) Rollback() error { return nil }

type nullRows struct {
	columns []string
	rows    [][]driver.Value
}

func (r *nullRows) Columns() []string { return r.columns }
func (*nullRows) Close() error        { return nil }
func (r *nullRows) Next(dest []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(dest, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}

// oneCompany answers with one company, whatever is asked.
func oneCompany(string) ([]string, [][]driver.Value) {
	return []string{"id", "name"}, [][]driver.Value{{int64(1), "acme"}}
}

// openNull opens GORM over the null driver.
func openNull(tb testing.TB, answer func(string) ([]string, [][]driver.Value)) *gorm.DB {
	tb.Helper()
	pool := sql.OpenDB(nullDriver{answer})
	tb.Cleanup(func() { _ = pool.Close() })
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

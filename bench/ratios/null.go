package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"strings"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// item is the model of all rows.
type item struct {
	ID    int64
	Name  string
	Price int64
	Stock int64
}

// The null driver answers every query with one row of item at once, so that
// what is left is the time of the layers above the driver.
type (
	nullConnector struct{ standby bool }
	nullDriver    struct{}
	nullConn      struct{ standby bool }
	nullRows      struct{ done bool }
)

func (c nullConnector) Connect(context.Context) (driver.Conn, error) { return nullConn(c), nil }
func (nullConnector) Driver() driver.Driver                          { return nullDriver{} }
func (nullDriver) Open(string) (driver.Conn, error)                  { return nullConn{}, nil }

func (nullConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (nullConn) Close() error                        { return nil }
func (nullConn) Begin() (driver.Tx, error)           { return nullConn{}, nil }
func (nullConn) Commit() error                       { return nil }
func (nullConn) Rollback() error                     { return nil }

//nolint:unparam // driver.QueryerContext wants an error
func (c nullConn) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	switch {
	case strings.HasPrefix(query, "SELECT s"), strings.HasPrefix(query, "SELECT p"):
		return c.probed(query), nil
	case strings.HasPrefix(query, "SELECT n."), strings.HasPrefix(query, "WITH "):
		return &nullRows{done: true}, nil // of the catalogue: there are no views and no functions
	}
	return &nullRows{}, nil
}

func (nullConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

func (nullConn) CheckNamedValue(*driver.NamedValue) error { return nil }

// probed answers the resolver's probes as an idle cluster does that has caught up.
func (c nullConn) probed(query string) driver.Rows {
	switch {
	case strings.HasPrefix(query, "SELECT standby"):
		return &fixedRow{c.standby, int64(1 << 20), int64(1 << 20), int64(1)}
	case strings.HasPrefix(query, "SELECT system_identifier"):
		return &fixedRow{int64(1)}
	}
	return &fixedRow{int64(16 << 20), int64(8192), int64(1), int64(1)}
}

// fixedRow is a result of one row, which it forgets when it was read.
type fixedRow []driver.Value

func (r *fixedRow) Columns() []string { return make([]string, len(*r)) }
func (r *fixedRow) Close() error      { return nil }

func (r *fixedRow) Next(dest []driver.Value) error {
	if *r == nil {
		return io.EOF
	}
	copy(dest, *r)
	*r = nil
	return nil
}

func (*nullRows) Columns() []string { return []string{"id", "name", "price", "stock"} }
func (*nullRows) Close() error      { return nil }

func (r *nullRows) Next(dest []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done = true
	dest[0], dest[1], dest[2], dest[3] = int64(7), "seven", int64(4711), int64(3)
	return nil
}

func nullDialector() gorm.Dialector {
	return postgres.New(postgres.Config{Conn: nullPool(false)})
}

func nullReplica() gorm.Dialector {
	return postgres.New(postgres.Config{Conn: nullPool(true)})
}

// openNull opens a database of the null driver. Its pool has the bounds that the
// resolver would give it, so that no side pays for a setting of database/sql
// that the other one lacks.
func openNull() (*gorm.DB, error) { return gorm.Open(nullDialector(), quiet()) }

func nullPool(standby bool) *sql.DB {
	pool := sql.OpenDB(nullConnector{standby: standby})
	pool.SetMaxOpenConns(50)
	pool.SetMaxIdleConns(50)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(time.Hour)
	return pool
}

func openReal(dsn string) (*gorm.DB, error) { return gorm.Open(postgres.Open(dsn), quiet()) }

func quiet() *gorm.Config {
	return &gorm.Config{Logger: logger.Discard, SkipDefaultTransaction: true}
}

// Package replay turns driver values that are already in memory into a real
// [*sql.Rows] or [*sql.Row], through a tiny in-process database/sql driver, so
// that every destination behaves as if a database had answered.
package replay

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"sync/atomic"
)

// Source is a result that can be read once, row by row.
type Source interface {
	// Columns describes the columns; it is called before the first Next.
	Columns() []Column
	// Next fills dest, one driver value a column, or returns io.EOF.
	Next(dest []driver.Value) error
	// Close is called once, when the reader is done.
	Close() error
}

// Results is an optional ability of a [Source]: that other results come after
// its first.
type Results interface {
	// More reports, at the end of a result, whether there is another.
	More() bool
	// NextResult goes on to it, over the rest of the present one, or returns
	// io.EOF. Columns describes it from then on.
	NextResult() error
}

// Column is what [*sql.ColumnType] tells of one column. The zero value of each
// field means that the database did not tell.
type Column struct {
	Name             string
	DatabaseTypeName string
	ScanType         reflect.Type
	Length           int64
	HasLength        bool
	Precision, Scale int64
	HasPrecision     bool
	Nullable         bool
	HasNullable      bool
}

// Describe reads the columns of a live result.
func Describe(rows *sql.Rows) ([]Column, error) {
	types, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	cols := make([]Column, len(types))
	for i, t := range types {
		c := Column{Name: t.Name(), DatabaseTypeName: t.DatabaseTypeName(), ScanType: t.ScanType()}
		c.Length, c.HasLength = t.Length()
		c.Precision, c.Scale, c.HasPrecision = t.DecimalSize()
		c.Nullable, c.HasNullable = t.Nullable()
		cols[i] = c
	}
	return cols, nil
}

// DB makes results. It is a database/sql pool whose connections are empty
// values: it never dials. Its one goroutine ends with Close. The zero DB, and one
// that was closed, make results too: each with a pool of its own, slowly.
type DB struct {
	pool   *sql.DB
	closed atomic.Bool
}

// New returns a DB; Close it.
func New() *DB {
	pool := sql.OpenDB(connector{})
	pool.SetMaxIdleConns(64)
	return &DB{pool: pool}
}

// Close releases the DB. Results that are still open can be read to their end.
func (d *DB) Close() error {
	d.closed.Store(true)
	return d.pool.Close()
}

// alone is a pool for one result, to be closed when that has begun.
func alone() *sql.DB { return sql.OpenDB(connector{}) }

// Rows returns a real *sql.Rows that reads src. An error means that ctx had
// already ended; src is then closed.
func (d *DB) Rows(ctx context.Context, src Source) (*sql.Rows, error) {
	var rows *sql.Rows
	err := sql.ErrConnDone
	if d.pool != nil {
		rows, err = d.pool.QueryContext(ctx, "", driverArg{src})
	}
	if err != nil && (d.pool == nil || d.closed.Load()) { // src was never asked
		pool := alone()
		defer pool.Close() //nolint:errcheck // there is nothing that could fail
		rows, err = pool.QueryContext(ctx, "", driverArg{src})
	}
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return rows, nil
}

// Row returns a real *sql.Row that reads the first row of src.
func (d *DB) Row(ctx context.Context, src Source) *sql.Row {
	var row *sql.Row
	if d.pool != nil {
		row = d.pool.QueryRowContext(ctx, "", driverArg{src})
	}
	if row == nil || row.Err() != nil && d.closed.Load() {
		pool := alone()
		defer pool.Close() //nolint:errcheck // there is nothing that could fail
		row = pool.QueryRowContext(ctx, "", driverArg{src})
	}
	if row.Err() != nil { // src was never asked
		_ = src.Close()
	}
	return row
}

// ErrorRow returns a *sql.Row whose Scan and Err return err. It needs no DB.
func ErrorRow(err error) *sql.Row {
	pool := sql.OpenDB(failing{err})
	defer pool.Close()
	return pool.QueryRowContext(context.Background(), "")
}

// failing is a connector whose error becomes that of the row.
type failing struct{ err error }

func (f failing) Connect(context.Context) (driver.Conn, error) { return nil, f.err }
func (failing) Driver() driver.Driver                          { return drv{} }

type driverArg struct{ src Source }

type connector struct{}

func (connector) Connect(context.Context) (driver.Conn, error) { return conn{}, nil }
func (connector) Driver() driver.Driver                        { return drv{} }

type drv struct{}

func (drv) Open(string) (driver.Conn, error) { return conn{}, nil }

type conn struct{}

var (
	_ driver.QueryerContext    = conn{}
	_ driver.NamedValueChecker = conn{}
)

var errQueryOnly = errors.New("replay: only queries are replayed")

func (conn) Prepare(string) (driver.Stmt, error)      { return nil, errQueryOnly }
func (conn) Begin() (driver.Tx, error)                { return nil, errQueryOnly }
func (conn) Close() error                             { return nil }
func (conn) CheckNamedValue(*driver.NamedValue) error { return nil }
func (conn) QueryContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Rows, error) {
	src := args[0].Value.(driverArg).src
	r := &rows{src: src}
	r.describe()
	return r, nil
}

type rows struct {
	src   Source
	cols  []Column
	names []string
}

var (
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeLength           = (*rows)(nil)
	_ driver.RowsColumnTypeNullable         = (*rows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
	_ driver.RowsNextResultSet              = (*rows)(nil)
)

func (r *rows) describe() {
	r.cols = r.src.Columns()
	r.names = make([]string, len(r.cols))
	for i := range r.cols {
		r.names[i] = r.cols[i].Name
	}
}

func (r *rows) HasNextResultSet() bool {
	more, ok := r.src.(Results)
	return ok && more.More()
}

func (r *rows) NextResultSet() error {
	more, ok := r.src.(Results)
	if !ok {
		return io.EOF
	}
	if err := more.NextResult(); err != nil {
		return err
	}
	r.describe()
	return nil
}

func (r *rows) Columns() []string              { return r.names }
func (r *rows) Close() error                   { return r.src.Close() }
func (r *rows) Next(dest []driver.Value) error { return r.src.Next(dest) }

func (r *rows) ColumnTypeDatabaseTypeName(i int) string { return r.cols[i].DatabaseTypeName }
func (r *rows) ColumnTypeLength(i int) (int64, bool)    { return r.cols[i].Length, r.cols[i].HasLength }
func (r *rows) ColumnTypeNullable(i int) (nullable, ok bool) {
	return r.cols[i].Nullable, r.cols[i].HasNullable
}
func (r *rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	return r.cols[i].Precision, r.cols[i].Scale, r.cols[i].HasPrecision
}

func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	if t := r.cols[i].ScanType; t != nil {
		return t
	}
	return reflect.TypeFor[any]()
}

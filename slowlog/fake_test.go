package slowlog

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// fake is a database in memory that answers what answer says and keeps what it
// was asked.
type fake struct {
	answer func(query string) (columns []string, rows [][]driver.Value, err error)

	mu  sync.Mutex // guards log
	log []string
}

func (f *fake) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, s)
}

// asked returns the texts that hold part.
func (f *fake) asked(part string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.log), func(s string) bool { return !strings.Contains(s, part) })
}

func (f *fake) open(tb testing.TB) *sql.DB {
	tb.Helper()
	db := sql.OpenDB(fakeConnector{f})
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// gorm opens GORM over f, as a database that calls itself dialect.
func (f *fake) gorm(tb testing.TB, dialect string) *gorm.DB {
	tb.Helper()
	db, err := gorm.Open(renamed{postgres.New(postgres.Config{Conn: f.open(tb)}), dialect}, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

type renamed struct {
	gorm.Dialector
	name string
}

func (r renamed) Name() string { return r.name }

type (
	fakeConnector struct{ f *fake }
	fakeConn      struct{ f *fake }
	fakeStmt      struct {
		f     *fake
		query string
	}
	fakeRows struct {
		columns []string
		rows    [][]driver.Value
	}
)

func (c fakeConnector) Connect(context.Context) (driver.Conn, error) { return fakeConn(c), nil }
func (c fakeConnector) Driver() driver.Driver                        { return nil }

func (c fakeConn) Prepare(query string) (driver.Stmt, error) { return fakeStmt{c.f, query}, nil }
func (c fakeConn) Close() error                              { return nil }
func (c fakeConn) Begin() (driver.Tx, error)                 { return nil, errors.New("fake: use BeginTx") }
func (c fakeConn) BeginTx(_ context.Context, o driver.TxOptions) (driver.Tx, error) {
	if o.ReadOnly {
		c.f.note("BEGIN READ ONLY")
	} else {
		c.f.note("BEGIN")
	}
	return c, nil
}
func (c fakeConn) Commit() error   { c.f.note("COMMIT"); return nil }
func (c fakeConn) Rollback() error { c.f.note("ROLLBACK"); return nil }

func (s fakeStmt) Close() error  { return nil }
func (s fakeStmt) NumInput() int { return -1 }
func (s fakeStmt) Exec([]driver.Value) (driver.Result, error) {
	s.f.note(s.query)
	return driver.RowsAffected(1), nil
}
func (s fakeStmt) Query([]driver.Value) (driver.Rows, error) {
	s.f.note(s.query)
	if s.f.answer == nil {
		return &fakeRows{}, nil
	}
	columns, rows, err := s.f.answer(s.query)
	if err != nil {
		return nil, err
	}
	return &fakeRows{columns, rows}, nil
}

func (r *fakeRows) Columns() []string { return r.columns }
func (r *fakeRows) Close() error      { return nil }
func (r *fakeRows) Next(dest []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(dest, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}

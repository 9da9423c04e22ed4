package nplusone_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/replay"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) {
	// GORM's store of prepared statements has a goroutine that it never ends.
	testbed.Main(m, goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

// fakePool answers every query with rows from memory: those of the first table
// whose name the text holds.
type fakePool struct {
	replay *replay.DB
	tables map[string]table
}

type table struct {
	columns []string
	rows    [][]driver.Value
}

func (p fakePool) PrepareContext(context.Context, string) (*sql.Stmt, error) {
	return nil, io.ErrUnexpectedEOF
}

func (p fakePool) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	return driver.RowsAffected(1), nil
}

func (p fakePool) QueryContext(ctx context.Context, text string, _ ...any) (*sql.Rows, error) {
	return p.replay.Rows(ctx, p.answer(text))
}

func (p fakePool) QueryRowContext(ctx context.Context, text string, _ ...any) *sql.Row {
	return p.replay.Row(ctx, p.answer(text))
}

func (p fakePool) answer(text string) replay.Source {
	for name, t := range p.tables {
		if !strings.Contains(text, `FROM "`+name+`"`) {
			continue
		}
		src := &memorySource{rows: t.rows}
		for _, c := range t.columns {
			src.columns = append(src.columns, replay.Column{Name: c})
		}
		if strings.Contains(text, "LIMIT") {
			src.rows = src.rows[:1]
		}
		return src
	}
	return &memorySource{}
}

type memorySource struct {
	columns []replay.Column
	rows    [][]driver.Value
}

func (s *memorySource) Columns() []replay.Column { return s.columns }
func (s *memorySource) Close() error             { return nil }

func (s *memorySource) Next(dest []driver.Value) error {
	if len(s.rows) == 0 {
		return io.EOF
	}
	copy(dest, s.rows[0])
	s.rows = s.rows[1:]
	return nil
}

// openFake opens GORM over a pool that answers from memory.
func openFake(tables map[string]table) (db *gorm.DB, closeDB func()) {
	rep := replay.New()
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: fakePool{rep, tables}}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		panic(err)
	}
	return db, func() { _ = rep.Close() }
}

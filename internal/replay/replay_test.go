package replay

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type table struct {
	cols   []Column
	rows   [][]driver.Value
	closed int
}

func (s *table) Columns() []Column { return s.cols }
func (s *table) Close() error      { s.closed++; return nil }
func (s *table) Next(dest []driver.Value) error {
	if len(s.rows) == 0 {
		return io.EOF
	}
	copy(dest, s.rows[0])
	s.rows = s.rows[1:]
	return nil
}

func open(t *testing.T) *DB {
	d := New()
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestRowsScanDriverValuesAndTellColumnTypes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	src := &table{
		cols: []Column{{Name: "id", DatabaseTypeName: "INT8", ScanType: reflect.TypeFor[int64]()}, {Name: "at"}, {Name: "b"}},
		rows: [][]driver.Value{{int64(7), now, []byte("x")}, {int64(8), nil, nil}},
	}
	rows, err := open(t).Rows(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	types, err := rows.ColumnTypes()
	if err != nil || types[0].DatabaseTypeName() != "INT8" || types[0].ScanType().Kind() != reflect.Int64 {
		t.Fatalf("column types: %v, %v", types, err)
	}
	var id int64
	var at sql.NullTime
	var b []byte
	if !rows.Next() || rows.Scan(&id, &at, &b) != nil || id != 7 || !at.Time.Equal(now) || string(b) != "x" {
		t.Fatalf("first row: %d %v %q %v", id, at, b, rows.Err())
	}
	if !rows.Next() || rows.Scan(&id, &at, &b) != nil || id != 8 || at.Valid || b != nil {
		t.Fatalf("second row: %d %v %q", id, at, b)
	}
	if rows.Next() || rows.Err() != nil {
		t.Fatalf("a third row, or %v", rows.Err())
	}
	if rows.Close() != nil || src.closed != 1 {
		t.Fatalf("source closed %d times, want 1", src.closed)
	}
}

func TestErrorRowGivesTheErrorToScan(t *testing.T) {
	t.Parallel()
	want := errors.New("refused")
	row := ErrorRow(want)
	var x int
	if err := row.Scan(&x); !errors.Is(err, want) || !errors.Is(row.Err(), want) {
		t.Fatalf("Scan = %v, Err = %v, want %v", err, row.Err(), want)
	}
}

func TestRowFromLiveRowsReadsOneRowAndClosesThem(t *testing.T) {
	t.Parallel()
	d := open(t)
	inner := &table{cols: []Column{{Name: "n"}}, rows: [][]driver.Value{{int64(1)}, {int64(2)}}}
	live, err := d.Rows(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	src, err := FromRows(live)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := d.Row(t.Context(), src).Scan(&n); err != nil || n != 1 {
		t.Fatalf("Scan = %d, %v", n, err)
	}
	if inner.closed != 1 {
		t.Fatalf("live rows closed %d times, want 1", inner.closed)
	}
}

func TestRowWithoutRowsIsErrNoRows(t *testing.T) {
	t.Parallel()
	var n int
	if err := open(t).Row(t.Context(), &table{cols: []Column{{Name: "n"}}}).Scan(&n); !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("Scan = %v, want sql.ErrNoRows", err)
	}
}

func TestClosedAndZeroDBsMakeResultsAndLeaveNothing(t *testing.T) {
	closed := New()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, db := range map[string]*DB{"closed": closed, "zero": {}} {
		src := &table{cols: []Column{{Name: "n"}}, rows: [][]driver.Value{{int64(1)}, {int64(2)}}}
		rows, err := db.Rows(t.Context(), src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []int64
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got = append(got, n)
		}
		if err := rows.Err(); err != nil || len(got) != 2 || src.closed != 1 {
			t.Fatalf("%s: %v, %v, closed %d times", name, got, err, src.closed)
		}
		src = &table{cols: []Column{{Name: "n"}}, rows: [][]driver.Value{{int64(3)}}}
		var n int64
		if err := db.Row(t.Context(), src).Scan(&n); err != nil || n != 3 || src.closed != 1 {
			t.Fatalf("%s: %d, %v, closed %d times", name, n, err, src.closed)
		}
	}
	goleak.VerifyNone(t)
}

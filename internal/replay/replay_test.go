package replay

import (
	"cmp"
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

// batch is several results in one.
type batch struct {
	table
	next []*table
	fail error
}

func (b *batch) More() bool { return len(b.next) > 0 }

func (b *batch) NextResult() error {
	if len(b.next) == 0 {
		return cmp.Or(b.fail, io.EOF)
	}
	b.table, b.next = *b.next[0], b.next[1:]
	return nil
}

func TestResultsFollowEachOtherAlsoThroughALiveResult(t *testing.T) {
	t.Parallel()
	d, broken := open(t), errors.New("broken")
	results := func(fail error) Source {
		return &batch{
			table: table{cols: []Column{{Name: "a"}}, rows: [][]driver.Value{{int64(1)}, {int64(2)}}},
			next:  []*table{{cols: []Column{{Name: "b"}, {Name: "c"}}, rows: [][]driver.Value{{"x", "y"}}}},
			fail:  fail,
		}
	}
	for name, wrap := range map[string]func(Source) Source{
		"itself": func(s Source) Source { return s },
		"live": func(s Source) Source {
			rows, err := d.Rows(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			live, err := FromRows(rows)
			if err != nil {
				t.Fatal(err)
			}
			return live
		},
	} {
		for rest := range 4 { // how many rows of the first are read: none, one, all, and past the end
			rows, err := d.Rows(t.Context(), wrap(results(nil)))
			if err != nil {
				t.Fatal(err)
			}
			for range rest {
				rows.Next()
			}
			names, err := rows.Columns()
			if err != nil || len(names) != 1 || !rows.NextResultSet() {
				t.Fatalf("%s, %d: %v, %v, %v", name, rest, names, err, rows.Err())
			}
			var x, y string
			if names, err := rows.Columns(); err != nil || len(names) != 2 || !rows.Next() || rows.Scan(&x, &y) != nil || x+y != "xy" {
				t.Fatalf("%s, %d: %v, %v, %q %q", name, rest, names, err, x, y)
			}
			if rows.Next() || rows.NextResultSet() || rows.Err() != nil || rows.Close() != nil {
				t.Fatalf("%s, %d: a third result, or %v", name, rest, rows.Err())
			}
		}
		rows, err := d.Rows(t.Context(), wrap(results(broken)))
		if err != nil {
			t.Fatal(err)
		}
		if !rows.NextResultSet() || rows.NextResultSet() || !errors.Is(rows.Err(), broken) {
			t.Fatalf("%s: %v, want the error on the way to a result", name, rows.Err())
		}
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

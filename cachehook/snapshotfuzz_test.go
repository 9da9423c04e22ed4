package cachehook

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/replay"
)

// nowhereDB is a pool that cannot connect.
type nowhereDB struct{}

func (nowhereDB) Connect(context.Context) (driver.Conn, error) { return nil, errors.New("nowhere") }
func (nowhereDB) Driver() driver.Driver                        { return nil }

// scanner scans rowsets as GORM does.
type scanner struct {
	db     *gorm.DB
	replay *replay.DB
}

func newScanner(tb testing.TB) *scanner {
	pool := sql.OpenDB(nowhereDB{})
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	must(tb, err)
	s := &scanner{db, replay.New()}
	tb.Cleanup(func() { _, _ = s.replay.Close(), pool.Close() })
	return s
}

// statement is one whose destination is dest, a pointer.
func (s *scanner) statement(tb testing.TB, dest any) *gorm.DB {
	tx := s.db.Session(&gorm.Session{NewDB: true, Context: context.Background()}).Model(dest)
	must(tb, tx.Statement.Parse(dest))
	tx.Statement.Dest, tx.Statement.ReflectValue = dest, reflect.ValueOf(dest).Elem()
	return tx
}

func (s *scanner) scan(tb testing.TB, set *rowset, dest any) *gorm.DB {
	tx, err := s.tryScan(tb, set, dest)
	must(tb, err)
	return tx
}

func (s *scanner) tryScan(tb testing.TB, set *rowset, dest any) (*gorm.DB, error) {
	from := newReader(set)
	rows, err := s.replay.Rows(context.Background(), &from)
	must(tb, err)
	defer rows.Close()
	tx := s.statement(tb, dest)
	gorm.Scan(rows, tx, 0)
	return tx, errors.Join(rows.Err(), tx.Error)
}

var plainColumns = []string{
	"id", "created_at", "updated_at", "deleted_at", "kind", "small", "num", "ratio", "exact", "yes", "text", "count",
	"seen", "day", "raw", "null", "a_city", "a_zip", "nobody's",
}

// randomRows makes a result of some of the columns, in any order, with NULL
// anywhere.
func randomRows(r *rand.Rand, rows int) *rowset {
	var cols []replay.Column
	var values []driver.Value
	var columns []string
	for _, i := range r.Perm(len(plainColumns))[:1+r.IntN(len(plainColumns))] {
		columns = append(columns, plainColumns[i])
		cols = append(cols, replay.Column{Name: plainColumns[i]})
	}
	text := func() string { return string(make([]byte, r.IntN(3))) + string(rune('a'+r.IntN(26))) }
	for range rows {
		for _, name := range columns {
			var v driver.Value
			switch name {
			case "id", "num", "count", "nobody's":
				v = r.Int64N(1 << 30)
			case "small":
				v = r.Int64N(256) - 128
			case "ratio", "exact":
				v = float64(float32(r.NormFloat64()))
			case "yes":
				v = r.IntN(2) == 0
			case "created_at", "updated_at", "deleted_at", "seen", "day":
				v = time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()
			case "raw":
				v = []byte(text()[:r.IntN(2)])
			default:
				v = text()
			}
			if r.IntN(5) == 0 {
				v = nil
			}
			values = append(values, v)
		}
	}
	return rowsOf(cols, values)
}

// dests are destinations that already hold something, with how they are made.
var dests = []func() any{
	func() any { return new(plainModel) },
	func() any { v := used(); return &v },
	func() any { return new([]plainModel) },
	func() any { return new([]*plainModel) },
	func() any { v := []plainModel{used(), used(), used()}; return &v },
	func() any { v := make([]*plainModel, 1, 8); return &v },
}

func FuzzSnapshotEqualsReplay(f *testing.F) {
	s := newScanner(f)
	for i := range uint64(64) {
		f.Add(i, uint8(i%7))
	}
	f.Fuzz(func(t *testing.T, seed uint64, rows uint8) {
		set := randomRows(rand.New(rand.NewPCG(seed, 7)), int(rows%32))
		if len(set.cols.list) == 1 && set.cols.list[0].Name == "nobody's" {
			return // GORM would scan the one column into the model itself
		}
		for i, fresh := range dests {
			first, want, got := fresh(), fresh(), fresh()
			shot := takeSnapshot(s.scan(t, set, first).Statement, set)
			n := s.scan(t, set, want).RowsAffected
			tx := s.statement(t, got)
			if shot == unfit || !shot.fits(tx.Statement) {
				t.Fatalf("destination %d has no snapshot for %v", i, set.cols.list)
			}
			for range 2 { // the second time into what the first has left
				if filled := shot.Fill(tx.Statement); filled != n {
					t.Fatalf("destination %d: %d rows, want %d", i, filled, n)
				}
			}
			s.readAlike(t, set, fresh, want, n)
			again := want
			if reflect.TypeOf(want).Elem().Kind() == reflect.Slice {
				again = fresh()
				s.scan(t, set, again)
			}
			if !reflect.DeepEqual(got, again) {
				t.Fatalf("destination %d:\ngot  %+v\nwant %+v", i, got, again)
			}
		}
	})
}

// readAlike reads set without GORM into a destination: what GORM has scanned
// from it is want, n rows.
func (s *scanner) readAlike(t *testing.T, set *rowset, fresh func() any, want any, n int64) {
	t.Helper()
	got := fresh()
	tx := s.statement(t, got)
	shot := readSnapshot(tx.Statement, set)
	if shot == unfit {
		t.Fatalf("%T cannot be read from %v", got, set.cols.list)
	}
	if filled := shot.Fill(tx.Statement); filled != n || !reflect.DeepEqual(got, want) {
		t.Fatalf("%d rows, want %d:\nread    %+v\nscanned %+v", filled, n, got, want)
	}
	given := fresh()
	tx = s.statement(t, given)
	models, ok := readGift(tx.Statement, set)
	if !ok {
		return // no list of models
	}
	if filled := models.Fill(tx.Statement); filled != n || !reflect.DeepEqual(given, want) {
		t.Fatalf("%d rows, want %d:\ngiven   %+v\nscanned %+v", filled, n, given, want)
	}
}

// FuzzReadIsScanOrNothing meets values that fields of their type seldom get: of a
// text in a number, of a number that does not fit. What is read without GORM is
// what GORM makes of it, and nothing where it gives an error.
func FuzzReadIsScanOrNothing(f *testing.F) {
	s := newScanner(f)
	for i := range uint64(256) {
		f.Add(i, uint8(i%5))
	}
	values := []driver.Value{
		nil, int64(0), int64(1), int64(-1), int64(127), int64(128), int64(255), int64(256), int64(1 << 15), int64(1 << 31), int64(1 << 40),
		0.0, 0.1, -1.5, 1e300, float64(float32(0.1)), true, false, "", "7", "true", "text", []byte{}, []byte("7"), []byte("text"),
		time.Unix(1, 2).UTC(), time.Unix(3, 0), time.Unix(5, 0).In(time.FixedZone("somewhere", 3600)),
	}
	f.Fuzz(func(t *testing.T, seed uint64, rows uint8) {
		r := rand.New(rand.NewPCG(seed, 11))
		var cols []replay.Column
		for _, i := range r.Perm(len(plainColumns))[:1+r.IntN(3)] {
			cols = append(cols, replay.Column{Name: plainColumns[i]})
		}
		var all []driver.Value
		for range (1 + int(rows%4)) * len(cols) {
			all = append(all, values[r.IntN(len(values))])
		}
		set := rowsOf(cols, all)
		for i, fresh := range dests {
			want, got := fresh(), fresh()
			scanned, err := s.tryScan(t, set, want)
			tx := s.statement(t, got)
			shot := readSnapshot(tx.Statement, set)
			if shot == unfit {
				continue
			}
			if err != nil {
				t.Fatalf("destination %d is read from %v %v, for which GORM gives %v", i, cols, all, err)
			}
			if n := shot.Fill(tx.Statement); n != scanned.RowsAffected || !reflect.DeepEqual(got, want) {
				t.Fatalf("destination %d, from %v %v:\nread    %+v\nscanned %+v", i, cols, all, got, want)
			}
			given := fresh()
			tx = s.statement(t, given)
			if models, ok := readGift(tx.Statement, set); ok {
				if n := models.Fill(tx.Statement); n != scanned.RowsAffected || !reflect.DeepEqual(given, want) {
					t.Fatalf("destination %d, from %v %v:\ngiven   %+v\nscanned %+v", i, cols, all, given, want)
				}
			}
		}
	})
}

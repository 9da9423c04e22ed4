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
	rows, err := s.replay.Rows(context.Background(), &reader{set: set})
	must(tb, err)
	defer rows.Close()
	tx := s.statement(tb, dest)
	gorm.Scan(rows, tx, 0)
	must(tb, rows.Err())
	return tx
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
		for i, fresh := range dests {
			first, want, got := fresh(), fresh(), fresh()
			shot := takeSnapshot(s.scan(t, set, first).Statement, set)
			n := s.scan(t, set, want).RowsAffected
			tx := s.statement(t, got)
			if shot == unfit || !shot.fits(tx.Statement) {
				if len(set.cols.list) == 1 && set.cols.list[0].Name == "nobody's" {
					continue // GORM scans the one column into the model itself
				}
				t.Fatalf("destination %d has no snapshot for %v", i, set.cols.list)
			}
			for range 2 { // the second time into what the first has left
				if filled := shot.Fill(tx.Statement); filled != n {
					t.Fatalf("destination %d: %d rows, want %d", i, filled, n)
				}
			}
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

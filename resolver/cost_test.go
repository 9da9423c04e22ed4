package resolver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"
)

// nothing is a driver that answers each query at once with one row. The probe can
// make nothing of that: the benchmark stands in for it.
type nothing struct{}

func (nothing) Connect(context.Context) (driver.Conn, error) { return nothingConn{}, nil }
func (nothing) Driver() driver.Driver                        { return nil }

type nothingConn struct{}

func (nothingConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (nothingConn) Close() error                        { return nil }
func (nothingConn) Begin() (driver.Tx, error)           { return nothingTx{}, nil }
func (nothingConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return nothingTx{}, nil
}
func (nothingConn) CheckNamedValue(*driver.NamedValue) error { return nil }
func (nothingConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

func (nothingConn) QueryContext(_ context.Context, _ string, _ []driver.NamedValue) (driver.Rows, error) {
	return &oneRow{columns: []string{"id", "n"}, row: []driver.Value{int64(1), int64(2)}}, nil
}

type nothingTx struct{}

func (nothingTx) Commit() error   { return nil }
func (nothingTx) Rollback() error { return nil }

type oneRow struct {
	columns []string
	row     []driver.Value
}

func (r *oneRow) Columns() []string { return r.columns }
func (*oneRow) Close() error        { return nil }
func (r *oneRow) Next(dest []driver.Value) error {
	if r.row == nil {
		return io.EOF
	}
	copy(dest, r.row)
	r.row = nil
	return nil
}

func openNothing(tb testing.TB) gorm.Dialector {
	pool := sql.OpenDB(nothing{})
	pool.SetMaxIdleConns(10)
	tb.Cleanup(func() { _ = pool.Close() })
	return postgres.New(postgres.Config{Conn: pool})
}

// BenchmarkRouted is a read over a driver that answers at once: bare, with
// dbresolver, and with a Resolver, whose part in it is what exceeds bare.
func BenchmarkRouted(b *testing.B) {
	use := func(db *gorm.DB, cfg Config) {
		cfg.Logger, cfg.Pool, cfg.MaxLag = quiet(), Pool{Min: -1}, 24*time.Hour
		cfg.Probe = Probe{Interval: time.Hour, Timeout: time.Second}
		r := New(cfg)
		if err := db.Use(r); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = r.Close() })
		if err := r.Ready(context.Background()); err != nil {
			b.Fatal(err)
		}
		for range 3 { // after a failure it takes more than one
			for _, n := range r.nodes() {
				r.took(n, identity{}, reading{placed: true, standby: !n.isPrimary(), lsn: 1000, timeline: 1}, r.now())
			}
		}
		if got := r.Stats().Rotation; got != len(cfg.Replicas) {
			b.Fatalf("%d replicas take reads", got)
		}
	}
	replicas := func() []Node {
		return []Node{{Dialector: openNothing(b)}, {Dialector: openNothing(b)}}
	}
	for _, v := range []struct {
		name string
		ctx  func() context.Context
		use  func(db *gorm.DB)
	}{
		{"bare", context.Background, func(*gorm.DB) {}},
		{"dbresolver", context.Background, func(db *gorm.DB) {
			if err := db.Use(dbresolver.Register(dbresolver.Config{Replicas: []gorm.Dialector{openNothing(b), openNothing(b)}})); err != nil {
				b.Fatal(err)
			}
		}},
		{"without replicas", context.Background, func(db *gorm.DB) { use(db, Config{}) }},
		{"replicas", context.Background, func(db *gorm.DB) { use(db, Config{Replicas: replicas()}) }},
		{"replicas, in a scope", func() context.Context { return inScope(context.Background(), "request") }, func(db *gorm.DB) { use(db, Config{Replicas: replicas()}) }},
		{"replicas, one in a zone", context.Background, func(db *gorm.DB) {
			nodes := replicas()
			nodes[0].Zone = "a"
			use(db, Config{Replicas: nodes, Policy: ZoneFirst("a")})
		}},
		{"groups", context.Background, func(db *gorm.DB) {
			nodes := replicas()
			use(db, Config{Replicas: nodes, Groups: []Group{{Name: "g", Tables: []any{"items"}, Replicas: []Node{{Name: "replica1"}}}}})
		}},
	} {
		b.Run(v.name, func(b *testing.B) {
			db, err := gorm.Open(openNothing(b), &gorm.Config{Logger: logger.Discard, SkipDefaultTransaction: true})
			if err != nil {
				b.Fatal(err)
			}
			v.use(db)
			db = db.WithContext(v.ctx())
			var it item
			b.ReportAllocs()
			for b.Loop() {
				if err := db.Find(&it).Error; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

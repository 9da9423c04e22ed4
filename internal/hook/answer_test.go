package hook_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// A write whose rows the caller reads ends as the server said behind them, and
// before the caller learns of it.
func TestRowsOfAWriteTellItsEnd(t *testing.T) {
	t.Parallel()
	const three = "INSERT INTO companies (name) SELECT 'cut ' || g FROM generate_series(1, 3) g RETURNING name"
	// The second row pushes the first out of the server's buffer; the third never comes.
	const endless = "SELECT add_company('a'), repeat('x', 100000) FROM generate_series(1, 3) g WHERE g < 3 OR pg_sleep(60) IS NOT NULL"
	for _, c := range []struct {
		name string
		text string
		cut  bool
		read func(t *testing.T, rows *sql.Rows, cancel func())
		want hook.TxnOutcome
		left int
	}{
		{"read to their end", three, false, func(t *testing.T, rows *sql.Rows, _ func()) {
			for rows.Next() { //nolint:revive // reading is all
			}
			if rows.Err() != nil {
				t.Error(rows.Err())
			}
		}, hook.Committed, 3},
		{"closed at the first", three, false, func(t *testing.T, rows *sql.Rows, _ func()) {
			if !rows.Next() || rows.Close() != nil {
				t.Error(rows.Err())
			}
		}, hook.Committed, 3},
		{"closed before the first", three, false, func(t *testing.T, rows *sql.Rows, _ func()) {
			if err := rows.Close(); err != nil {
				t.Error(err)
			}
		}, hook.Committed, 3},
		{"broken off", three, true, func(t *testing.T, rows *sql.Rows, _ func()) {
			for rows.Next() { //nolint:revive // reading is all
			}
			if rows.Err() == nil {
				t.Error("no error")
			}
		}, hook.Unknown, 3},
		{"broken off and closed", three, true, func(t *testing.T, rows *sql.Rows, _ func()) {
			if err := rows.Close(); err == nil {
				t.Error("no error")
			}
		}, hook.Unknown, 3},
		{"until the context ends", endless, false, func(t *testing.T, rows *sql.Rows, cancel func()) {
			if !rows.Next() {
				t.Error(rows.Err())
			}
			cancel()
			for rows.Next() { //nolint:revive // what has come already
			}
			if rows.Err() != context.Canceled { //nolint:errorlint // as database/sql gives it
				t.Error(rows.Err())
			}
		}, hook.Unknown, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster := testbed.SharedCluster(t)
			p := newPlace(t, cluster, cluster.NewDatabase(t), "s")
			p.script(t, "CREATE FUNCTION "+p.schema+".add_company(text) RETURNS text LANGUAGE sql AS $$ INSERT INTO companies (name) VALUES ($1) RETURNING name $$")
			cutter := testbed.NewCutter(t, cluster.Primary().Addr(), "cut 1")
			db, err := gorm.Open(postgres.Open(testbed.DSN(cutter.Addr(), p.database)+"&search_path="+p.schema), &gorm.Config{Logger: logger.Discard})
			if err != nil {
				t.Fatal(err)
			}
			pool, err := db.DB()
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			hub, err := hook.Attach(db)
			if err != nil {
				t.Fatal(err)
			}
			seen := &txns{}
			remove, err := hub.Register(seen)
			if err != nil {
				t.Fatal(err)
			}
			defer remove()
			if c.cut {
				cutter.Cut(1)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			rows, err := db.WithContext(ctx).Raw(c.text).Rows()
			if err != nil {
				t.Fatal(err)
			}
			if got := seen.outcomes(); len(got) != 0 {
				t.Fatalf("told %v while rows are there to be read", got)
			}
			c.read(t, rows, cancel)
			if c.want == hook.Unknown && !c.cut {
				waitUntil(t, func() bool { return len(seen.outcomes()) > 0 })
			}
			if got := seen.outcomes(); !slices.Equal(got, []hook.TxnOutcome{c.want}) {
				t.Errorf("told %v, want %v once", got, c.want)
			}
			waitUntil(t, func() bool { return p.count(t) == c.left })
			waitUntil(t, func() bool { return pool.Stats().InUse == 0 })
		})
	}
}

func (p *place) count(t *testing.T) (n int) {
	t.Helper()
	if err := p.raw.QueryRowContext(t.Context(), "SELECT count(*) FROM companies").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

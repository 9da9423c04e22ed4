package slowlog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/sqltext"
	"github.com/gorminfra/infra/internal/testbed"
)

// statements keeps what reaches the server through a pool.
type statements struct {
	mu   sync.Mutex
	list []string
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	s.add(d.SQL)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) TracePrepareStart(ctx context.Context, _ *pgx.Conn, d pgx.TracePrepareStartData) context.Context {
	s.add("PREPARE: " + d.SQL)
	return ctx
}

func (s *statements) TracePrepareEnd(context.Context, *pgx.Conn, pgx.TracePrepareEndData) {}

func (s *statements) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, text)
}

func (s *statements) with(part string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.list), func(t string) bool { return !strings.Contains(t, part) })
}

// openPostgres opens GORM on a new database. wolves has 20,000 rows and
// statistics; bite is a volatile function that writes.
func openPostgres(tb testing.TB, options ...string) (*gorm.DB, *sql.DB, *statements) {
	tb.Helper()
	c := testbed.SharedCluster(tb)
	dsn := c.Primary().DSN(c.NewDatabase(tb))
	for _, o := range options {
		dsn += "&" + o
	}
	return openDSN(tb, dsn)
}

func openDSN(tb testing.TB, dsn string) (*gorm.DB, *sql.DB, *statements) {
	tb.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	seen := &statements{}
	cfg.Tracer = seen
	pool := stdlib.OpenDB(*cfg)
	tb.Cleanup(func() { _ = pool.Close() })
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		tb.Fatal(err)
	}
	for _, text := range []string{
		`CREATE TABLE wolves (id bigserial PRIMARY KEY, name text NOT NULL, pack int NOT NULL)`,
		`INSERT INTO wolves (name, pack) SELECT 'wolf ' || i, i % 100 FROM generate_series(1, 20000) i`,
		`ANALYZE wolves`,
		`CREATE TABLE bites (id int)`,
		`CREATE SEQUENCE howls`,
		`CREATE FUNCTION bite(int) RETURNS int LANGUAGE sql AS 'INSERT INTO bites VALUES ($1) RETURNING id'`,
		`CREATE FUNCTION bite(bigint) RETURNS int LANGUAGE sql AS 'INSERT INTO bites VALUES ($1) RETURNING id'`,
		`CREATE PROCEDURE hunt() LANGUAGE sql AS 'INSERT INTO bites VALUES (1)'`,
	} {
		if _, err := pool.Exec(text); err != nil {
			tb.Fatal(err)
		}
	}
	return db, pool, seen
}

type wolf struct {
	ID   int64
	Name string
	Pack int
}

func (wolf) TableName() string { return "wolves" }

func mustExec(tb testing.TB, db *gorm.DB, text string, args ...any) {
	tb.Helper()
	if err := db.Exec(text, args...).Error; err != nil {
		tb.Fatal(err)
	}
}

func TestWritesInAnyDisguiseAreNeverExplained(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Plan, Analyze} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			db, _, seen := openPostgres(t, "default_query_exec_mode=simple_protocol")
			l := use(t, db, Config{Threshold: 1, Explain: mode, ExplainEvery: time.Second})
			for _, text := range disguises {
				tx := db.Begin()
				_ = tx.Exec(text).Error // many cannot run here, which is all the same
				tx.Rollback()
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			s := l.Stats()
			if s.Explained+s.ExplainFailed+s.ExplainDropped != 0 || s.ExplainSkipped == 0 {
				t.Errorf("%+v", s)
			}
			for _, text := range seen.with("EXPLAIN (") {
				if !slices.Contains(disguises, text) {
					t.Errorf("asked: %s", text)
				}
			}
		})
	}
}

// The guard in front is bypassed here: what stands behind it must hold alone.
func TestTransactionOfThePlanKeepsWritesOut(t *testing.T) {
	t.Parallel()
	db, pool, _ := openPostgres(t, "default_query_exec_mode=simple_protocol")
	count := func() (wolves, bites, dens int, howl int64) {
		if err := pool.QueryRow(`SELECT (SELECT count(*) FROM wolves), (SELECT count(*) FROM bites),
			(SELECT count(*) FROM pg_class WHERE relname = 'den'), (SELECT last_value FROM howls)`).Scan(&wolves, &bites, &dens, &howl); err != nil {
			t.Fatal(err)
		}
		return wolves, bites, dens, howl
	}
	for _, text := range []string{
		`INSERT INTO wolves (name, pack) VALUES ('x', 1)`, `DELETE FROM wolves`, `UPDATE wolves SET name = 'x'`,
		`WITH d AS (DELETE FROM wolves RETURNING id) SELECT count(*) FROM d`,
		`CREATE TABLE den AS SELECT * FROM wolves`, `SELECT * INTO den FROM wolves`,
		`SELECT bite(1)`, `SELECT nextval('howls')`, `SELECT setval('howls', 77)`,
		`SELECT 1; COMMIT; DELETE FROM wolves`, `SELECT 1; DELETE FROM wolves; COMMIT`,
		`SELECT * FROM wolves FOR UPDATE`,
	} {
		for _, mode := range []Mode{Plan, Analyze} {
			conn, err := pool.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// The catalogue's check would make Plan of Analyze: no table, no function.
			j := &job{sql: text, text: sqltext.Parse("SELECT 1"), timeout: time.Second}
			_, _ = explainPostgres(t.Context(), conn, j, mode)
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			if w, b, d, h := count(); w != 20000 || b != 0 || d != 0 || h != 1 {
				t.Fatalf("%v of %s: %d wolves, %d bites, %d dens, howl %d", mode, text, w, b, d, h)
			}
		}
	}
	mustExec(t, db, "SELECT 1")
}

func TestPlanIsAskedForOnItsOwnConnectionAndRolledBack(t *testing.T) {
	t.Parallel()
	db, _, seen := openPostgres(t)
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	var w []wolf
	if err := db.Where("name = ?", "wolf 7").Find(&w).Error; err != nil || len(w) != 1 {
		t.Fatalf("%d wolves, error %v", len(w), err)
	}
	until(t, "the plan", func() bool { return l.Stats().Explained == 1 })
	entries := l.Entries()
	if len(entries) != 1 {
		t.Fatalf("%d entries: the slow log looked at itself", len(entries))
	}
	p := entries[0].Plan
	if p == nil || p.Node != "primary" || p.Analyzed || !strings.Contains(p.Text, "Seq Scan on wolves") || !strings.Contains(p.Text, "Filter: (name = ?)") {
		t.Fatalf("plan %+v", p)
	}
	if len(p.Findings) != 1 || p.Findings[0].Kind != SequentialScan || p.Findings[0].Table != "wolves" || p.Findings[0].Rows != 20000 {
		t.Fatalf("findings %+v", p.Findings)
	}
	if got := seen.with("PREPARE: EXPLAIN (FORMAT JSON) SELECT"); len(got) != 1 {
		t.Errorf("EXPLAIN was not prepared: %q", got)
	}
	for _, want := range []string{"begin read only", "SET LOCAL statement_timeout = 100", "SET LOCAL lock_timeout = 100", "rollback"} {
		if len(seen.with(want)) != 1 {
			t.Errorf("%q was sent %d times", want, len(seen.with(want)))
		}
	}
	if len(seen.with("commit")) != 0 {
		t.Errorf("commit was sent")
	}

	// Once per shape, whatever the values.
	for _, name := range []string{"wolf 8", "wolf 9"} {
		if err := db.Where("name = ?", name).Find(&w).Error; err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Explained != 1 || s.Slow != 3 || len(l.Entries()) != 3 || l.Entries()[0].Plan != p {
		t.Errorf("%+v", s)
	}
}

func TestParametersOfEveryKindAreBound(t *testing.T) {
	t.Parallel()
	for _, options := range [][]string{nil, {"default_query_exec_mode=simple_protocol"}, {"default_query_exec_mode=exec"}} {
		t.Run(strings.Join(options, ""), func(t *testing.T) {
			t.Parallel()
			db, _, _ := openPostgres(t, options...)
			l := use(t, db, Config{Threshold: 1, Explain: Plan})
			cases := []func(*gorm.DB) *gorm.DB{
				func(db *gorm.DB) *gorm.DB { return db.Where("id = ?", 7) },
				func(db *gorm.DB) *gorm.DB { return db.Where("id IN ? AND pack > ?", []int{1, 2, 3}, 0) },
				func(db *gorm.DB) *gorm.DB { return db.Where("name = ? OR name LIKE ?", "a", "b%") },
				func(db *gorm.DB) *gorm.DB { return db.Where(&wolf{Name: "x"}).Limit(3).Offset(1) },
				func(db *gorm.DB) *gorm.DB { return db.Where("now() > ?", time.Now()) },
				func(db *gorm.DB) *gorm.DB { return db.Where("name = ?", sql.NullString{}) },
				func(db *gorm.DB) *gorm.DB { s := "p"; return db.Where("name <> ?", &s) },
			}
			for i, c := range cases {
				var w []wolf
				if err := c(db).Find(&w).Error; err != nil {
					t.Fatalf("case %d: %v", i, err)
				}
				until(t, fmt.Sprintf("the plan of case %d", i), func() bool {
					if s := l.Stats(); s.ExplainFailed+s.ExplainSkipped+s.ExplainDropped > 0 {
						t.Fatalf("case %d: %+v, %s", i, s, l.Entries()[0].Shape)
					}
					return l.Stats().Explained == uint64(i+1)
				})
			}
		})
	}
}

func TestPreparedAndTransactionalReadsAreExplained(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	err := db.Session(&gorm.Session{PrepareStmt: true}).Transaction(func(tx *gorm.DB) error {
		var w []wolf
		return tx.Where("id = ?", 7).Find(&w).Error
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the plan", func() bool { return l.Stats().Explained == 1 })
	if p := l.Entries()[0].Plan; len(p.Findings) != 0 || !strings.Contains(p.Text, "Index Scan using wolves_pkey on wolves") {
		t.Fatalf("plan %+v", p)
	}
}

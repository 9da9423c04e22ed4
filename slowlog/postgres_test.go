package slowlog

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"runtime"
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

	"github.com/gorminfra/infra/internal/hook"
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

// --- own time

type den struct {
	ID     int64
	Wolves []slowWolf `gorm:"foreignKey:DenID"`
}

type slowWolf struct {
	ID    int64
	DenID int64
}

func TestPreloadIsNotBlamedOnItsParent(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	mustExec(t, db, `CREATE TABLE dens (id bigint PRIMARY KEY)`)
	mustExec(t, db, `INSERT INTO dens VALUES (1)`)
	mustExec(t, db, `CREATE VIEW slow_wolves AS SELECT 1::bigint AS id, 1::bigint AS den_id FROM (SELECT pg_sleep(0.3)) s`)
	l := use(t, db, Config{Threshold: 250 * time.Millisecond})
	var dens []den
	if err := db.Preload("Wolves").Find(&dens).Error; err != nil {
		t.Fatal(err)
	}
	if len(dens) != 1 || len(dens[0].Wolves) != 1 {
		t.Fatalf("dens %+v", dens)
	}
	var tables []string
	for _, e := range l.Entries() {
		tables = append(tables, e.Table)
		if e.Duration < 300*time.Millisecond {
			t.Errorf("duration %v of a statement that sleeps 300 ms", e.Duration)
		}
	}
	if !slices.Equal(tables, []string{"slow_wolves"}) {
		t.Fatalf("slow tables %v, want the preload's alone", tables)
	}
}

func TestRowsAreTimedToTheirClose(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	const pause = 300 * time.Millisecond
	l := use(t, db, Config{Threshold: pause})
	_, _, line, _ := runtime.Caller(0)
	rows, err := db.Raw("SELECT id FROM wolves ORDER BY id LIMIT 2").Rows()
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() {
		t.Fatal("no row")
	}
	time.Sleep(pause) // the caller's own work, which holds the connection
	if n := len(l.Entries()); n != 0 {
		t.Fatalf("%d entries before Close", n)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	entries := l.Entries()
	if len(entries) != 1 || entries[0].Duration < pause {
		t.Fatalf("entries %+v, want one of %v or more", entries, pause)
	}
	if site := entries[0].Site.String(); !strings.Contains(site, fmt.Sprintf("postgres_test.go:%d ", line+1)) {
		t.Errorf("site %s, want line %d, where the loop began", site, line+1)
	}
}

func TestSlowStatementOnRealTime(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	l := use(t, db, Config{Threshold: 200 * time.Millisecond})
	mustExec(t, db, "SELECT 1")
	mustExec(t, db, "SELECT pg_sleep(0.2)")
	if e := l.Entries(); len(e) == 0 || e[0].Duration < 200*time.Millisecond || e[0].Shape != "SELECT pg_sleep(?)" {
		t.Fatalf("entries %+v", e)
	}
}

// --- what is explained

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

func TestFailingPlanLeavesTheUsersTransactionUsable(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	err := db.Transaction(func(tx *gorm.DB) error {
		if err := tx.Exec("CREATE TABLE cubs (id int)").Error; err != nil {
			return err
		}
		var n int64
		if err := tx.Table("cubs").Count(&n).Error; err != nil { // no other session sees the table yet
			return err
		}
		until(t, "the plan to fail", func() bool { return l.Stats().ExplainFailed == 1 })
		return tx.Exec("INSERT INTO cubs VALUES (1)").Error
	})
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	if err := db.Table("cubs").Count(&n).Error; err != nil || n != 1 {
		t.Fatalf("%d cubs, error %v", n, err)
	}
}

func TestFailedStatementsHaveNoPlan(t *testing.T) {
	t.Parallel()
	db, _, seen := openPostgres(t)
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	var n int
	if err := db.Raw("SELECT 1 FROM nowhere").Scan(&n).Error; err == nil {
		t.Fatal("no error")
	}
	if err := db.Where("id = -1").First(&wolf{}).Error; err != gorm.ErrRecordNotFound { //nolint:errorlint // as GORM gives it
		t.Fatal(err)
	}
	until(t, "the plan of the empty read", func() bool { return l.Stats().Explained == 1 })
	if e := l.Entries(); len(e) != 2 || e[0].Error != "not_found" || e[1].Error != "42P01" || len(seen.with("EXPLAIN (FORMAT JSON) SELECT 1 FROM nowhere")) != 0 {
		t.Fatalf("entries %+v", e)
	}
}

// --- faults

func TestExhaustedPoolIsLeftAlone(t *testing.T) {
	t.Parallel()
	db, pool, seen := openPostgres(t)
	pool.SetMaxOpenConns(1)
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	err := db.Transaction(func(tx *gorm.DB) error {
		var w []wolf
		if err := tx.Where("id = ?", 7).Find(&w).Error; err != nil {
			return err
		}
		until(t, "the plan to be dropped", func() bool { return l.Stats().ExplainDropped == 1 })
		return tx.Exec("UPDATE wolves SET pack = 1 WHERE id = 7").Error
	})
	if err != nil {
		t.Fatal(err)
	}
	if pool.Stats().WaitCount != 0 || len(seen.with("EXPLAIN")) != 0 {
		t.Fatalf("the pool was waited for %d times, asked %q", pool.Stats().WaitCount, seen.with("EXPLAIN"))
	}
	// A dropped plan is still due.
	var w []wolf
	if err := db.Where("id = ?", 8).Find(&w).Error; err != nil {
		t.Fatal(err)
	}
	until(t, "the plan", func() bool { return l.Stats().Explained == 1 })
}

func TestServerThatDoesNotAnswerHoldsUpThePlanForItsTimeoutOnly(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	proxy := testbed.NewProxy(t, c.Primary().Addr())
	name := c.NewDatabase(t)
	db, pool, _ := openDSN(t, testbed.DSN(proxy.Addr(), name))
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	conn, err := pool.Conn(t.Context()) // so that one is idle, past its dial
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	proxy.Blackhole()
	j := &job{pool: pool, sql: "SELECT 1", text: sqltext.Parse("SELECT 1"), timeout: minExplainTimeout}
	start := time.Now()
	_, result := l.planOf(t.Context(), j)
	if d := time.Since(start); result == planDone || d > 10*time.Second {
		t.Fatalf("result %v after %v", result, d)
	}
	if err := proxy.Restore(); err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, "SELECT 1")
}

func TestPlanDoesNotQueueBehindALock(t *testing.T) {
	t.Parallel()
	db, pool, _ := openPostgres(t)
	tx := db.Begin()
	defer tx.Rollback()
	if err := tx.Exec("LOCK TABLE wolves IN ACCESS EXCLUSIVE MODE").Error; err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the pool is closed after it
	text := "SELECT * FROM wolves"
	_, err = explainPostgres(t.Context(), conn, &job{sql: text, text: sqltext.Parse(text), timeout: maxExplainTimeout}, Plan)
	if sqlState(err) != "55P03" { // lock_not_available
		t.Fatalf("error %v", err)
	}
}

func TestStatementTimeoutBoundsAnalyzeAndThePlanAloneIsKept(t *testing.T) {
	t.Parallel()
	db, _, seen := openPostgres(t)
	l := use(t, db, Config{Threshold: 1, Explain: Analyze})
	var v []string
	// Quick for the caller, who stops it; EXPLAIN ANALYZE gets no further.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := db.WithContext(ctx).Raw("SELECT pg_sleep(30)::text").Scan(&v).Error; err == nil {
		t.Fatal("no error")
	}
	until(t, "the plan", func() bool { return l.Stats().Explained == 1 })
	e := l.Entries()[0]
	if e.Plan.Analyzed || e.Error != "timeout" {
		t.Fatalf("analyzed %v, error %q", e.Plan.Analyzed, e.Error)
	}
	if n := len(seen.with("PREPARE: EXPLAIN (ANALYZE")); n != 1 {
		t.Fatalf("EXPLAIN ANALYZE was asked for %d times, want once, in vain", n)
	}
}

// --- redaction

func TestNoValueIsKeptAnywhere(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	out := &lines{}
	var sunk []Entry
	l := use(t, db, Config{
		Threshold: 1, Explain: Analyze, Logger: slog.New(slog.NewJSONHandler(out, nil)),
		User: func(context.Context) string { return "topsecret-user" },
		Sink: func(_ context.Context, e Entry) { sunk = append(sunk, e) },
	})
	var w []wolf
	var n int64
	for _, run := range []func() error{
		func() error { return db.Where("name = ?", "topsecret").Find(&w).Error },
		func() error { return db.Where("name = 'topsecret' AND pack IN (424242, 424243)").Find(&w).Error },
		func() error {
			return db.Raw("SELECT count(*) FROM wolves WHERE name = $x$topsecret$x$ -- topsecret\n GROUP BY 'topsecret' || name ORDER BY name = 'topsecret'").Scan(&n).Error
		},
		func() error { return db.Create(&wolf{Name: "topsecret"}).Error },
		func() error { return db.Exec("SET application_name = topsecret").Error },
		func() error { return db.Table("wolves AS w, (SELECT 'topsecret' AS s) x").Count(&n).Error },
		func() error { return db.Raw("SELECT to_char(now(), 'topsecret')").Scan(&w).Error },
	} {
		_ = run()
	}
	for _, run := range []func() error{
		func() error { return db.Exec("SELECT 'topsecret'::int").Error },
		func() error {
			return db.Exec("INSERT INTO wolves (id, name, pack) VALUES (1, 'topsecret', 424242)").Error
		},
		func() error { return db.Exec("SELECT 'topsecret").Error },
	} {
		if run() == nil {
			t.Fatal("no error")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Explained < 3 || s.Slow != 10 {
		t.Fatalf("%+v", s)
	}
	var all bytes.Buffer
	for _, e := range slices.Concat(l.Entries(), sunk) {
		fmt.Fprintf(&all, "%+v %+v\n", e, e.Plan)
	}
	for _, total := range l.Top(100) {
		fmt.Fprintf(&all, "%+v %+v\n", total, total.Plan)
	}
	all.Write(out.buf.Bytes())
	for _, secret := range []string{"topsecret", "424242", "424243"} {
		for line := range strings.Lines(all.String()) {
			if strings.Contains(line, secret) {
				t.Errorf("%s came through: %s", secret, line)
			}
		}
	}
}

// --- nodes

// toReplica sends every read outside transactions to one node.
type toReplica struct{ node *hook.Node }

func (r *toReplica) Route(context.Context, *hook.Record) (*hook.Node, error) { return r.node, nil }
func (r *toReplica) Retry(context.Context, *hook.Record, error) *hook.Node   { return nil }
func (r *toReplica) Done(*hook.Record, *hook.Node, error, time.Duration)     {}
func (r *toReplica) RouteTx(context.Context, *sql.TxOptions, hook.Hint) (*hook.Node, error) {
	return r.node, nil
}

func TestPlanIsAskedOfTheNodeThatRanTheStatement(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	name := c.NewDatabase(t)
	db, _, onPrimary := openDSN(t, c.Primary().DSN(name))
	if err := c.WaitCaughtUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg, err := pgx.ParseConfig(c.Replica(0).DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	onReplica := &statements{}
	cfg.Tracer = onReplica
	replica := stdlib.OpenDB(*cfg)
	defer replica.Close() //nolint:errcheck // after the test
	l := use(t, db, Config{Threshold: 1, Explain: Analyze})
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	node := hub.NewNode("r1", replica)
	defer node.Close()
	remove, err := hub.Register(&toReplica{node})
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	var w []wolf
	if err := db.Where("id = ?", 7).Find(&w).Error; err != nil || len(w) != 1 {
		t.Fatalf("%d wolves, error %v", len(w), err)
	}
	until(t, "the plan", func() bool { return l.Stats().Explained == 1 })
	if e := l.Entries()[0]; e.Node != "r1" || e.Plan.Node != "r1" || !e.Plan.Analyzed {
		t.Errorf("entry of %s, plan %+v", e.Node, e.Plan)
	}
	if len(onReplica.with("PREPARE: EXPLAIN (ANALYZE")) != 1 || len(onPrimary.with("EXPLAIN")) != 0 {
		t.Errorf("asked the replica %q, the primary %q", onReplica.with("EXPLAIN"), onPrimary.with("EXPLAIN"))
	}
}

func TestSlowLogWhileStatementsRunOnManyGoroutines(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	l := use(t, db, Config{Threshold: 1, Explain: Plan, History: 20, Queue: 4, Sink: func(_ context.Context, e Entry) { _ = e.Site.String() }})
	var wg sync.WaitGroup
	const goroutines, each = 8, 25
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				var w []wolf
				if err := db.Table("wolves").Limit(g+1).Where(fmt.Sprintf("id = ? AND pack <> pack + %s", strings.Repeat("1+", i)+"1"), i).Find(&w).Error; err != nil {
					t.Error(err)
					return
				}
				_, _, _ = l.Entries(), l.Top(3), l.Stats()
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := l.Stats()
	if s.Slow != goroutines*each || s.Entries != 20 || s.Explained == 0 || s.ExplainFailed != 0 {
		t.Fatalf("%+v", s)
	}
}

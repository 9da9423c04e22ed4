package slowlog

import (
	"context"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/sqltext"
	"github.com/gorminfra/infra/internal/testbed"
)

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

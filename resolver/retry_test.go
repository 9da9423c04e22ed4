package resolver

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// undialled makes every statement of a pool dial.
func undialled(t *testing.T, pool *sql.DB) {
	t.Helper()
	pool.SetMaxIdleConns(-1)
	eventually(t, "the pool to be empty", func() bool { return pool.Stats().OpenConnections == 0 })
}

// A server that shuts down, or is not up yet, turns new connections away, and the
// probe's own may go on answering meanwhile.
func TestR08WhatFindsNoConnectionToThePrimaryWaitsForIt(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	d := newDoor(t, c.Primary().Addr())
	db, r := open(t, testbed.DSN(d.addr(), g.name)+"&connect_timeout=2", Config{
		Replicas: DSNs(g.nodes...), Probe: patient, Pool: Pool{Max: 8, Min: -1}, FailoverWait: time.Minute, Logger: quiet(),
	})
	must(t, r.Ready(deadline(t)))
	pool, err := db.DB()
	must(t, err)
	read := func(ctx context.Context) error { return db.WithContext(Primary(ctx)).First(&item{}, 1).Error }
	// More than there are attempts: one of them has to wait until a probe finds that
	// the server takes connections again.
	const many = 5
	for _, tt := range []struct {
		what string
		how  refusal
		n    int
		run  func(context.Context) error
	}{
		{"read", resets, many, read},
		{"read", hangsUp, many, read},
		{"read", shutsDown, many, read},
		{"read", isSilent, 2, read},
		{"row", resets, many, func(ctx context.Context) error {
			return db.WithContext(Primary(ctx)).Raw("SELECT 1").Row().Scan(new(int))
		}},
		{"read-only transaction", shutsDown, many, func(ctx context.Context) error {
			return db.WithContext(Primary(ctx)).Transaction(func(tx *gorm.DB) error { return tx.First(&item{}, 1).Error }, &sql.TxOptions{ReadOnly: true})
		}},
		{"write", shutsDown, many, func(ctx context.Context) error {
			return db.Session(&gorm.Session{SkipDefaultTransaction: true}).WithContext(ctx).Create(&item{N: 9}).Error
		}},
	} {
		undialled(t, pool)
		d.shut(tt.how, tt.n)
		if err := tt.run(inScope(deadline(t), "dial")); err != nil {
			t.Errorf("%s, %s: %v", tt.what, refusalNames[tt.how], err)
		}
		if n := d.count(); n != tt.n {
			t.Errorf("%s, %s: %d connections were turned away", tt.what, refusalNames[tt.how], n)
		}
	}
}

// A read that was on the primary because no replica took reads, and one that asked
// for the primary, lose their connection to it.
func TestR08AReadThatLosesThePrimaryGoesWhereItMay(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	g.allInUse()
	ctx := deadline(t)
	must(t, errors.Join(g.r.Drain("replica1"), g.r.Drain("replica2")))
	// It waits on the primary until somebody has written, and on a replica not at all.
	const text = "SELECT pg_is_in_recovery() FROM pg_sleep(CASE WHEN NOT pg_is_in_recovery() AND (SELECT max(n) FROM items) = 0 THEN 60 ELSE 0 END)"
	type answer struct {
		standby bool
		reading int // results that count as being read, while this one is
		err     error
	}
	reading := func(ctx context.Context) int {
		s := g.r.sessionAt(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.reading
	}
	ask := func(ctx context.Context) <-chan answer {
		done := make(chan answer, 1)
		go func() {
			var a answer
			rows, err := g.db.WithContext(ctx).Raw(text).Rows()
			if a.err = err; err == nil {
				rows.Next()
				a.reading = reading(ctx)
				a.err = errors.Join(rows.Scan(&a.standby), rows.Close(), rows.Err())
			}
			done <- a
		}()
		return done
	}
	sessions := []context.Context{inScope(ctx, "any"), Primary(inScope(ctx, "only"))}
	either, only := ask(sessions[0]), ask(sessions[1])
	eventually(t, "both to run on the primary", func() bool { return g.node("primary").InFlight == 2 })
	conn, err := c.Primary().Conn(ctx, g.name)
	must(t, err)
	defer conn.Close(ctx)
	eventually(t, "both to wait there", func() (both bool) {
		must(t, conn.QueryRow(ctx, "SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'").Scan(&both))
		return both
	})
	must(t, errors.Join(g.r.Resume("replica1"), g.r.Resume("replica2")))
	_, err = conn.Exec(ctx, "UPDATE items SET n = 1; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")
	must(t, err)
	if a := <-either; a.err != nil || !a.standby || a.reading != 1 {
		t.Errorf("a read that may go anywhere: standby %v, %d being read, %v", a.standby, a.reading, a.err)
	}
	if a := <-only; a.err != nil || a.standby || a.reading != 1 {
		t.Errorf("one that asked for the primary: standby %v, %d being read, %v", a.standby, a.reading, a.err)
	}
	for _, ctx := range sessions {
		if n := reading(ctx); n != 0 {
			t.Errorf("%d results count as being read", n)
		}
	}
}

// Two nodes at once take no connections: nothing was sent to either.
func TestR08AReadThatFindsNoConnectionTwiceGoesToTheThirdNode(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	first, main := newDoor(t, c.Replica(0).Addr()), newDoor(t, c.Primary().Addr())
	db, r := open(t, testbed.DSN(main.addr(), g.name), Config{
		Replicas: DSNs(testbed.DSN(first.addr(), g.name), g.nodes[1]), MaxLag: time.Hour, Logger: quiet(),
		Pool: Pool{Max: 30, Min: -1}, Probe: Probe{Interval: 5 * time.Second, Timeout: 30 * time.Second}, FailoverWait: time.Minute,
	})
	must(t, r.Ready(deadline(t)))
	eventually(t, "both replicas to be fit", func() bool {
		r.wakeAll()
		for _, n := range r.Nodes() {
			if !n.Up || n.Staleness < 0 {
				return false
			}
		}
		return true
	})
	for _, n := range r.nodes() {
		undialled(t, n.db.Load())
	}
	first.shut(resets, 1000)
	main.shut(shutsDown, 1000)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := db.WithContext(inScope(deadline(t), "two")).First(&item{}, 1).Error; err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if first.count() == 0 || main.count() == 0 {
		t.Errorf("%d were turned away by the replica, %d by the primary", first.count(), main.count())
	}
}

func TestR08WhatCountsAsAFailureOfTheConnection(t *testing.T) {
	t.Parallel()
	// An address that swallows everything, and the connection string's own patience.
	l := newDoor(t, "127.0.0.1:1")
	l.shut(isSilent, 10)
	_, dial := pgconn.Connect(t.Context(), testbed.DSN(l.addr(), "x")+"&connect_timeout=1")
	if dial == nil || !errors.Is(dial, context.DeadlineExceeded) {
		t.Fatalf("the dial gives %v", dial)
	}
	for name, tt := range map[string]struct {
		err  error
		want failure
	}{
		"connect_timeout":              {dial, timedOut},
		"the caller's deadline":        {context.DeadlineExceeded, noFailure},
		"the attempt's share":          {errors.Join(hook.ErrBudget, context.DeadlineExceeded), timedOut},
		"admin_shutdown":               {&pgconn.PgError{Code: "57P01"}, refused},
		"crash_shutdown":               {&pgconn.PgError{Code: "57P02"}, refused},
		"cannot_connect_now":           {&pgconn.PgError{Code: "57P03"}, refused},
		"idle_session_timeout":         {&pgconn.PgError{Code: "57P05"}, dropped},
		"query_canceled":               {&pgconn.PgError{Code: "57014"}, noFailure},
		"too_many_connections":         {&pgconn.PgError{Code: "53300"}, saturated},
		"a pooler without its server":  {&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "server login has been failing, try again later (server_login_retry)"}, refused},
		"a pooler that is full":        {&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "query_wait_timeout"}, saturated},
		"a pooler with too many of us": {&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "no more connections allowed (max_client_conn)"}, saturated},
		"dblink's own connection":      {&pgconn.PgError{Severity: "ERROR", Code: "08001"}, noFailure},
		"an error of the question":     {&pgconn.PgError{Code: "22012"}, noFailure},
	} {
		if got := failureOf(tt.err, true); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

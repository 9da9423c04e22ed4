package slowlog

import (
	"context"
	"database/sql"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlansAreDroppedWhenTooManyWait(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	l := New(Config{Threshold: 1, Explain: Plan, Logger: discard})
	hold := make(chan struct{})
	asked := make(chan struct{}, 100)
	if err := db.Use(l); err != nil {
		t.Fatal(err)
	}
	l.planner = func(context.Context, *sql.Conn, *job, Mode) (*QueryPlan, error) {
		asked <- struct{}{}
		<-hold
		return &QueryPlan{}, nil
	}
	run := func(i int) {
		if err := db.Exec("SELECT * FROM t" + strconv.Itoa(i)).Error; err != nil {
			t.Fatal(err)
		}
	}
	run(0)
	<-asked // the worker is busy
	for i := range explainQueue + 5 {
		run(i + 1)
	}
	if s := l.Stats(); s.ExplainDropped != 5 || s.Entries != explainQueue+6 {
		t.Fatalf("%+v", s)
	}
	close(hold)
	until(t, "the plans", func() bool { return l.Stats().Explained == explainQueue+1 })
	run(explainQueue + 5) // was dropped, and is due still
	until(t, "the plan that was dropped", func() bool { return l.Stats().Explained == explainQueue+2 })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Unlogged != 0 {
		t.Fatalf("lines were lost with the plans: %+v", s)
	}
}

func TestPanicOfTheDriverEndsNothing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "postgres")
	l := use(t, db, Config{Threshold: 1, Explain: Plan})
	l.planner = func(context.Context, *sql.Conn, *job, Mode) (*QueryPlan, error) { panic("boom") }
	for i := range 2 {
		if err := db.Exec("SELECT * FROM t" + strconv.Itoa(i)).Error; err != nil {
			t.Fatal(err)
		}
	}
	until(t, "both to fail", func() bool { return l.Stats().ExplainFailed == 2 })
	if db, _ := db.DB(); db.Stats().InUse != 0 {
		t.Fatal("the connection was not given back")
	}
}

func TestUnknownDatabasesHaveNoPlans(t *testing.T) {
	t.Parallel()
	f := &fake{}
	db := f.gorm(t, "sqlserver")
	l := use(t, db, Config{Threshold: 1, Explain: Analyze})
	if err := db.Exec("SELECT 1").Error; err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Slow != 1 || len(f.asked("EXPLAIN")) != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAnalyzeRestsFourTimesAsLongAsItRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		db := f.gorm(t, "postgres")
		l := use(t, db, Config{Explain: Analyze})
		l.limits.general, l.limits.lowest = 0, 0 // the clock stands still while statements run
		var began []time.Time
		l.planner = func(context.Context, *sql.Conn, *job, Mode) (*QueryPlan, error) {
			began = append(began, time.Now())
			time.Sleep(time.Second) //nolint:forbidigo // the clock is synctest's
			return &QueryPlan{}, nil
		}
		for i := range 3 {
			if err := db.Exec("SELECT * FROM t" + strconv.Itoa(i)).Error; err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(8 * time.Second) //nolint:forbidigo // the clock is synctest's
		synctest.Wait()
		if len(began) != 2 || began[1].Sub(began[0]) != 5*time.Second {
			t.Fatalf("began %v, want two, five seconds apart", began)
		}
		start := time.Now()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != time.Second || len(began) != 3 {
			t.Fatalf("Close took %v, %d plans; it must not rest", d, len(began))
		}
	})
}

func TestPlansThatWaitAtCloseAreGivenUpInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		db := f.gorm(t, "postgres")
		sunk := 0
		l := use(t, db, Config{Explain: Plan, Sink: func(context.Context, Entry) { sunk++ }})
		l.limits.general, l.limits.lowest = 0, 0
		l.planner = func(ctx context.Context, _ *sql.Conn, _ *job, _ Mode) (*QueryPlan, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(1500 * time.Millisecond):
				return &QueryPlan{}, nil
			}
		}
		for i := range 10 {
			if err := db.Exec("SELECT * FROM t" + strconv.Itoa(i)).Error; err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		s := l.Stats()
		if d := time.Since(start); d != closePlans || s.Explained != 1 || s.ExplainFailed != 1 || s.ExplainDropped != 8 || sunk != 10 {
			t.Fatalf("Close took %v, %d sunk, %+v", d, sunk, s)
		}
	})
}

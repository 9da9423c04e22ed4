package slowlog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// toReplica sends every read outside transactions to one node.
type toReplica struct{ node *hook.Node }

func (r *toReplica) Route(context.Context, *hook.Record) (*hook.Node, error) { return r.node, nil }

func (r *toReplica) Retry(context.Context, *hook.Record, error) *hook.Node { return nil }

func (r *toReplica) Done(*hook.Record, *hook.Node, error, time.Duration) {}

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
	l := analyzing(t, db)
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

package testbed_test

import (
	"context"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// newTable makes a database with an empty table on all nodes.
func newTable(t *testing.T, c *testbed.Cluster) (db string) {
	t.Helper()
	ctx := deadline(t)
	db = c.NewDatabase(t)
	check(t, c.Primary().Exec(ctx, db, "CREATE TABLE items (id int PRIMARY KEY)"))
	check(t, c.WaitCaughtUp(ctx))
	return db
}

func insert(t *testing.T, n *testbed.Node, db string, id int) {
	t.Helper()
	check(t, n.Exec(deadline(t), db, "INSERT INTO items VALUES ($1)", id))
}

func count(t *testing.T, n *testbed.Node, db string) (rows int) {
	t.Helper()
	ctx := deadline(t)
	conn, err := n.Conn(ctx, db)
	check(t, err)
	defer conn.Close(ctx)
	check(t, conn.QueryRow(ctx, "SELECT count(*) FROM items").Scan(&rows))
	return rows
}

func wantCount(t *testing.T, n *testbed.Node, db string, want int) {
	t.Helper()
	if got := count(t, n, db); got != want {
		t.Errorf("%s has %d rows, want %d", n.Name(), got, want)
	}
}

func TestClusterReplicatesRows(t *testing.T) {
	c := testbed.SharedCluster(t)
	if got := len(c.Replicas()); got != 2 {
		t.Fatalf("the shared cluster has %d replicas, want 2", got)
	}
	db := newTable(t, c)
	insert(t, c.Primary(), db, 1)
	check(t, c.WaitCaughtUp(deadline(t)))
	for _, n := range c.Nodes() {
		wantCount(t, n, db, 1)
		recovering, err := n.IsInRecovery(deadline(t))
		check(t, err)
		if want := n != c.Primary(); recovering != want {
			t.Errorf("%s in recovery: %v, want %v", n.Name(), recovering, want)
		}
	}
}

func TestPausedReplicaServesOldRowsUntilResumed(t *testing.T) {
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	db, replica := newTable(t, c), c.Replica(0)
	check(t, replica.PauseReplay(deadline(t)))
	insert(t, c.Primary(), db, 1)

	short, cancel := context.WithTimeout(deadline(t), 100*time.Millisecond)
	defer cancel()
	if err := c.WaitCaughtUp(short); err == nil {
		t.Error("WaitCaughtUp returned for a paused replica")
	}
	wantCount(t, replica, db, 0)
	check(t, replica.ResumeReplay(deadline(t)))
	check(t, c.WaitCaughtUp(deadline(t)))
	wantCount(t, replica, db, 1)
}

func TestCutReplicaServesOldRowsUntilRestored(t *testing.T) {
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	db, replica := newTable(t, c), c.Replica(0)
	check(t, replica.CutReceiver(deadline(t)))
	insert(t, c.Primary(), db, 1)
	wantCount(t, replica, db, 0)
	check(t, replica.RestoreReceiver(deadline(t)))
	check(t, c.WaitCaughtUp(deadline(t)))
	wantCount(t, replica, db, 1)
}

func TestFrozenNodeDoesNotAnswer(t *testing.T) {
	c := testbed.NewCluster(t, testbed.ClusterConfig{})
	ctx, n := deadline(t), c.Primary()
	conn, err := n.Conn(ctx, "")
	check(t, err)
	defer func() { _ = conn.Close(ctx) }()

	check(t, n.Freeze())
	for name, ask := range map[string]func(context.Context) error{
		"new connection":  func(ctx context.Context) error { return n.Exec(ctx, "", "SELECT 1") },
		"open connection": func(ctx context.Context) error { return conn.Ping(ctx) },
	} {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		if err := ask(short); err == nil || short.Err() == nil {
			t.Errorf("%s to a frozen node: %v, want a deadline", name, err)
		}
		cancel()
	}
	check(t, n.Thaw())
	check(t, n.Exec(ctx, "", "SELECT 1"))
}

func TestCloseEndsFrozenCluster(t *testing.T) {
	c, err := testbed.StartCluster(deadline(t), testbed.ClusterConfig{})
	testbed.RequirePostgres(t)
	check(t, err)
	check(t, c.Primary().Freeze())
	check(t, c.Close())
	check(t, c.Close())
}

func TestNodeReturnsAfterStop(t *testing.T) {
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	db := newTable(t, c)
	for i, stop := range []func() error{c.Primary().StopFast, c.Primary().StopImmediate} {
		insert(t, c.Primary(), db, i)
		check(t, stop())
		if c.Primary().Running() {
			t.Fatal("the primary runs after its stop")
		}
		check(t, c.Primary().Start(deadline(t)))
		wantCount(t, c.Primary(), db, i+1)
		check(t, c.WaitCaughtUp(deadline(t)))
		wantCount(t, c.Replica(0), db, i+1)
	}
}

func TestPromotedReplicaTakesOver(t *testing.T) {
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	db := newTable(t, c)
	old, next, other := c.Primary(), c.Replica(0), c.Replica(1)
	insert(t, old, db, 1)
	check(t, c.WaitCaughtUp(deadline(t)))
	check(t, old.StopImmediate())
	check(t, next.Promote(deadline(t)))
	if c.Primary() != next {
		t.Fatalf("primary is %s, want %s", c.Primary().Name(), next.Name())
	}
	check(t, other.Follow(deadline(t), next))
	insert(t, next, db, 2)

	// The old primary's own writes after the split are lost, as they should be.
	check(t, old.Start(deadline(t)))
	insert(t, old, db, 100)
	insert(t, old, db, 101)
	check(t, old.RestartAsStandby(deadline(t), next))
	insert(t, next, db, 3)
	check(t, c.WaitCaughtUp(deadline(t)))
	for _, n := range c.Nodes() {
		wantCount(t, n, db, 3)
	}
	recovering, err := old.IsInRecovery(deadline(t))
	check(t, err)
	if !recovering {
		t.Error("the old primary is no standby")
	}
}

func TestSetDelaysReplay(t *testing.T) {
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	db, replica := newTable(t, c), c.Replica(0)
	check(t, replica.Set(deadline(t), "recovery_min_apply_delay", "1h"))
	insert(t, c.Primary(), db, 1)
	wantCount(t, replica, db, 0)
	check(t, replica.Set(deadline(t), "recovery_min_apply_delay", "0"))
	check(t, c.WaitCaughtUp(deadline(t)))
	wantCount(t, replica, db, 1)
}

func TestStartClusterRefusesImpossibleConfig(t *testing.T) {
	for _, replicas := range []int{-1, 9} {
		if c, err := testbed.StartCluster(deadline(t), testbed.ClusterConfig{Replicas: replicas}); err == nil {
			_ = c.Close()
			t.Errorf("%d replicas were accepted", replicas)
		}
	}
	if c, err := testbed.StartCluster(deadline(t), testbed.ClusterConfig{Settings: map[string]string{"no_such": "1"}}); err == nil {
		_ = c.Close()
		t.Error("an unknown setting was accepted")
	} else {
		t.Log(err)
	}
}

func BenchmarkStartCluster(b *testing.B) {
	testbed.RequirePostgres(b)
	for b.Loop() {
		c, err := testbed.StartCluster(context.Background(), testbed.ClusterConfig{Replicas: 2})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = c.Close()
		b.StartTimer()
	}
}

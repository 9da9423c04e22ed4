package resolver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// readers read all the time, each with a scope of its own, and count.
type readers struct {
	ok, failed atomic.Int64
	stop       func()
}

func (g *rig) readAllTheTime(n int) *readers {
	rs := &readers{}
	ctx, cancel := context.WithCancel(deadline(g.t))
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				var it item
				rctx, done := context.WithTimeout(inScope(context.Background(), "reader"), 20*time.Second)
				err := g.db.WithContext(rctx).First(&it, 1).Error
				done()
				if err != nil {
					rs.failed.Add(1)
					g.t.Errorf("a read failed: %v", err)
					return
				}
				rs.ok.Add(1)
				time.Sleep(time.Millisecond)
			}
		}()
	}
	rs.stop = func() { cancel(); wg.Wait() }
	g.t.Cleanup(rs.stop)
	return rs
}

func (rs *readers) more(t *testing.T, n int64) {
	t.Helper()
	want := rs.ok.Load() + n
	eventually(t, "more reads", func() bool { return rs.ok.Load() >= want || rs.failed.Load() > 0 })
}

func TestR08ReplicasThatFallCostNoRead(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	ctx := deadline(t)
	first, second := c.Replica(0), c.Replica(1)
	name := c.NewDatabase(t)
	must(t, c.Primary().Exec(ctx, name, "CREATE TABLE items (id bigserial PRIMARY KEY, n bigint); INSERT INTO items (n) VALUES (0)"))
	must(t, c.WaitCaughtUp(ctx))
	must(t, first.StopImmediate())

	g := &rig{t: t, c: c, name: name, primary: c.Primary().DSN(name)}
	g.open(Config{
		Replicas: DSNs(first.DSN(name), second.DSN(name)), Probe: Probe{Interval: 50 * time.Millisecond, Timeout: 10 * time.Second},
		Pool: Pool{Max: 8, Min: 2}, Logger: quiet(), MaxLag: time.Hour,
	})
	if n := g.node("replica1"); n.Up || n.LastError == "" || n.ProbeErrors == 0 {
		t.Errorf("a replica that is down at the start: %+v", n)
	}
	rs := g.readAllTheTime(8)
	rs.more(t, 200)
	if d := decisions(g.r); d["replica1"] != 0 || d["replica2"] == 0 {
		t.Errorf("decisions with replica1 down: %v", d)
	}

	// It comes up and is used.
	must(t, first.Start(ctx))
	eventually(t, "replica1 to be used", func() bool { return decisions(g.r)["replica1"] > 100 })

	for round, stop := range []func() error{second.StopImmediate, second.StopFast, second.StopImmediate} {
		before := g.node("replica2").Ejections
		must(t, stop())
		eventually(t, "replica2 to be ejected", func() bool { return !g.node("replica2").Up })
		if got := g.node("replica2").Ejections; got != before+1 {
			t.Errorf("round %d: ejected %d times", round, got-before)
		}
		rs.more(t, 100)
		must(t, second.Start(ctx))
		served := decisions(g.r)["replica2"]
		eventually(t, "replica2 to be used again", func() bool { return decisions(g.r)["replica2"] > served+50 })
	}

	// All are gone: the primary, and the reason.
	must(t, errors.Join(first.StopImmediate(), second.StopImmediate()))
	eventually(t, "reads to go to the primary because all are down", func() bool { return g.node("primary").Decisions["down"] > 50 })
	must(t, errors.Join(first.Start(ctx), second.Start(ctx)))
	eventually(t, "the replicas to be in use", func() bool { return g.node("replica1").Up && g.node("replica2").Up })

	// The primary is gone: lag is frozen, reads go on, and nobody is ejected.
	g.allInUse()
	must(t, c.Primary().StopImmediate())
	eventually(t, "the primary to be missed", func() bool { return !g.node("primary").Up })
	ejections := g.node("replica1").Ejections + g.node("replica2").Ejections
	rs.more(t, 300)
	if got := g.node("replica1").Ejections + g.node("replica2").Ejections; got != ejections {
		t.Error("the loss of the primary ejected a replica")
	}
	if err := g.db.Create(&item{N: 1}).Error; err == nil {
		t.Error("a write without a primary succeeded")
	}
	must(t, c.Primary().Start(ctx))
	eventually(t, "writes", func() bool { return g.db.WithContext(inScope(ctx, "w")).Create(&item{N: 2}).Error == nil })

	// A backend that is killed takes its read with it: once more, elsewhere.
	for range 20 {
		must(t, first.Exec(ctx, "", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name <> 'infra:probe'", name))
		rs.more(t, 5)
	}
	rs.stop()
	t.Logf("%d reads, %d failed", rs.ok.Load(), rs.failed.Load())
}

func TestFrozenReplicaIsEjectedAfterTwoTimeouts(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag = time.Hour
		cfg.Probe = Probe{Interval: 100 * time.Millisecond, Timeout: 500 * time.Millisecond}
	})
	g.allInUse()
	must(t, c.Replica(0).Freeze())
	began := time.Now()
	eventually(t, "the frozen replica to be ejected", func() bool { return !g.node("replica1").Up })
	t.Logf("ejected after %v", time.Since(began))
	for range 20 {
		if w := g.read(inScope(deadline(t), "frozen"), 1); w.Port == c.Replica(0).Port() {
			t.Fatal("a frozen server answered")
		}
	}
	must(t, c.Replica(0).Thaw())
	eventually(t, "the replica to be used again", func() bool {
		return g.read(inScope(deadline(t), "thawed"), 1).Port == c.Replica(0).Port()
	})
}

func TestR09WhatTheCallerEndsIsNoEvidence(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	for range 5 {
		ctx, cancel := context.WithTimeout(inScope(deadline(t), "slow"), 20*time.Millisecond)
		err := g.db.WithContext(ctx).Raw("SELECT pg_sleep(5)").Scan(new(string)).Error
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a read past its deadline gives %v", err)
		}
		err = g.db.WithContext(inScope(deadline(t), "timeout")).Transaction(func(tx *gorm.DB) error {
			return errors.Join(tx.Exec("SET LOCAL statement_timeout = 10").Error, tx.Exec("SELECT pg_sleep(5)").Error)
		})
		if failureOf(err, true) != noFailure {
			t.Fatalf("57014 is evidence: %v", err)
		}
		if err := g.db.WithContext(inScope(deadline(t), "division")).Raw("SELECT 1/0").Scan(new(int)).Error; err == nil {
			t.Fatal("1/0 has a value")
		}
	}
	for _, n := range g.r.Nodes() {
		if !n.Up || n.Ejections > 0 || n.ConnectionErrors > 0 || n.Decisions["retry"] > 0 {
			t.Errorf("%+v", n)
		}
	}

	// A saturated pool is no dead node, and does not blind its probe.
	var wg sync.WaitGroup
	for range 24 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := g.db.WithContext(inScope(deadline(t), "busy")).Raw("SELECT pg_sleep(0.6)").Scan(new(string)).Error; err != nil {
				t.Error(err)
			}
		}()
	}
	before := g.node("replica1").Probes
	eventually(t, "probes", func() bool { return g.node("replica1").Probes > before+1 })
	wg.Wait()
	if n := g.node("replica1"); !n.Up || n.Ejections > 0 {
		t.Errorf("%+v", n)
	}
}

func TestRecoveryConflictIsTriedElsewhere(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1, Settings: map[string]string{"max_standby_streaming_delay": "0"}})
	g := newRig(t, c, nil)
	ctx := deadline(t)
	g.allInUse()
	done := make(chan error, 1)
	var port int
	// The read holds its lock until the primary's exclusive one is replayed.
	go func() {
		done <- g.db.WithContext(inScope(ctx, "long")).Raw("SELECT inet_server_port() FROM items, pg_sleep(CASE WHEN pg_is_in_recovery() THEN 30 ELSE 0 END) WHERE id = 1").Scan(&port).Error
	}()
	eventually(t, "the read to run on the replica", func() bool { return g.node("replica1").InFlight == 1 })
	conn, err := c.Replica(0).Conn(ctx, g.name)
	must(t, err)
	defer conn.Close(ctx)
	eventually(t, "the read to hold its lock", func() (held bool) {
		must(t, conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'items'::regclass AND granted)").Scan(&held))
		return held
	})
	must(t, c.Primary().Exec(ctx, g.name, "ALTER TABLE items ADD COLUMN extra int"))
	must(t, <-done)
	if port != c.Primary().Port() {
		t.Errorf("the second attempt ran on port %d", port)
	}
	if n := g.node("primary"); n.Decisions["retry"] != 1 {
		t.Errorf("retries on the primary: %v", n.Decisions)
	}
	if n := g.node("replica1"); n.Ejections != 0 {
		t.Error("a conflict with recovery ejected the replica")
	}
}

func TestNodesOfTheWrongKindAreNotUsed(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	other := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	g := newRig(t, c, func(cfg *Config) {
		cfg.Replicas = []Node{
			{Name: "good", DSN: cfg.Replicas[0].DSN},
			{Name: "second_primary", DSN: c.Primary().DSN("")},
			{Name: "stranger", DSN: other.Replica(0).DSN("")},
		}
	})
	eventually(t, "the good one", func() bool { return g.node("good").Up && g.node("good").Staleness >= 0 })
	for name, why := range map[string]string{"second_primary": "wrong role", "stranger": "other system identifier"} {
		if n := g.node(name); n.Up || n.Misfit != why {
			t.Errorf("%s: %+v", name, n)
		}
	}
	for range 50 {
		if w := g.read(inScope(deadline(t), "kind"), 1); !w.Standby {
			t.Fatal("a read was not on the good replica")
		}
	}
}

func TestPrimaryThatIsAStandbyIsRefused(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	name := c.NewDatabase(t)
	db, r := open(t, c.Replica(0).DSN(name), Config{Replicas: DSNs(c.Replica(1).DSN(name)), Probe: patient, Pool: Pool{Min: -1}, Logger: quiet()})
	must(t, r.Ready(deadline(t)))
	if err := db.Exec("CREATE TABLE x (id int)").Error; !errors.Is(err, ErrNoPrimary) {
		t.Errorf("a write gives %v", err)
	}
	if err := db.Begin().Error; !errors.Is(err, ErrNoPrimary) {
		t.Errorf("a transaction gives %v", err)
	}
	// With nothing to choose from there is nothing to refuse.
	db, _ = open(t, c.Replica(0).DSN(name), Config{Pool: Pool{Min: -1}, Logger: quiet()})
	if !recovering(t, db) {
		t.Error("a program on a standby alone cannot read")
	}
}

func TestUnprivilegedRoleSuffices(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	ctx := deadline(t)
	must(t, c.Primary().Exec(ctx, g.name, "CREATE ROLE plain LOGIN; GRANT SELECT ON items TO plain"))
	t.Cleanup(func() {
		_ = c.Primary().Exec(context.Background(), g.name, "DROP OWNED BY plain; DROP ROLE plain")
	})
	must(t, c.WaitCaughtUp(ctx))
	as := func(dsn string) string { return dsn + "&user=plain" }
	db, r := open(t, as(g.primary), Config{Replicas: DSNs(as(g.nodes[0]), as(g.nodes[1])), Probe: patient, Pool: Pool{Min: -1}, Logger: quiet()})
	must(t, r.Ready(ctx))
	eventually(t, "a read on a replica", func() bool { return recovering(t, db) })
	var user string
	must(t, db.Raw("SELECT current_user").Scan(&user).Error)
	if user != "plain" {
		t.Fatalf("the user is %q", user)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes() {
		if n.identity.system == 0 || n.last.timeline == 0 {
			t.Errorf("%s: system %d, timeline %d", n.name, n.identity.system, n.last.timeline)
		}
	}
}

func TestReadyNamesWhoHasNotAnswered(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	proxy := testbed.NewProxy(t, c.Replica(0).Addr())
	proxy.Blackhole()
	_, r := open(t, c.Primary().DSN(""), Config{Replicas: DSNs(testbed.DSN(proxy.Addr(), "")), Probe: patient, Pool: Pool{Min: -1}, Logger: quiet()})
	eventually(t, "the primary's probe", func() bool { return r.Nodes()[0].Up })
	ctx, cancel := context.WithTimeout(deadline(t), 10*time.Millisecond)
	defer cancel()
	if err := r.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) || err.Error() != "resolver: wait for the first probe of replica1: context deadline exceeded" {
		t.Errorf("%v", err)
	}
	must(t, proxy.Restore())
	must(t, r.Ready(deadline(t)))
}

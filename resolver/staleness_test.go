package resolver

import (
	"context"
	"sync"
	"testing"
	"time"

	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/testbed"
)

// where is what a server says of a read.
type where struct {
	Standby bool
	Port    int
	N       int64
}

func (g *rig) read(ctx context.Context, id int64) (w where) {
	g.t.Helper()
	must(g.t, g.db.WithContext(ctx).Raw("SELECT pg_is_in_recovery() AS standby, inet_server_port() AS port, n FROM items WHERE id = ?", id).Scan(&w).Error)
	return w
}

// writing keeps the primary's WAL growing until stop is called.
func (g *rig) writing() (stop func()) {
	ctx, cancel := context.WithCancel(deadline(g.t))
	conn, err := g.c.Primary().Conn(ctx, g.name)
	must(g.t, err)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer conn.Close(context.Background())
		for ctx.Err() == nil {
			if _, err := conn.Exec(ctx, "UPDATE items SET n = n + 1 WHERE id = 1"); err != nil && ctx.Err() == nil {
				g.t.Errorf("writer: %v", err)
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return func() { cancel(); wg.Wait() }
}

// This test hurts its cluster, each part mending what it did.
func TestR02StalenessOnRealServers(t *testing.T) {
	t.Parallel()
	const bound = 1500 * time.Millisecond
	// The WAL writer sleeps 25 times its delay when idle. While what was written is
	// not flushed, the probe writes something itself and moves the position.
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2, Settings: map[string]string{"wal_writer_delay": "1ms"}})
	g := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag = bound
		cfg.Probe.Interval = 100 * time.Millisecond
	})
	ctx := deadline(t)
	first, second := c.Replica(0), c.Replica(1)

	t.Run("receiver cut while idle: stays", func(t *testing.T) {
		g.allInUse()
		for attempt := 1; ; attempt++ {
			before, err := c.Primary().LSN(ctx)
			must(t, err)
			must(t, first.CutReceiver(ctx))
			worst := time.Duration(0)
			for end := time.Now().Add(3 * bound); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				worst = max(worst, g.node("replica1").Staleness)
			}
			after, err := c.Primary().LSN(ctx)
			must(t, err)
			if before == after {
				if worst > 2*bound || !g.node("replica1").Up { // a busy machine may be late with a sample
					t.Errorf("nothing was written for %v, and the replica looked %v stale", 3*bound, worst)
				}
				if w := g.read(inScope(ctx, "idle"), 1); !w.Standby {
					t.Error("reads left the replicas")
				}
				return
			}
			// The server logged something of its own.
			if attempt == 10 {
				t.Fatal("the primary is never idle")
			}
			must(t, first.RestoreReceiver(ctx))
			must(t, c.WaitCaughtUp(ctx))
		}
	})

	t.Run("receiver cut while the primary writes: ejected", func(t *testing.T) {
		stop := g.writing()
		defer stop()
		eventually(t, "the cut replica to look stale", func() bool { return g.node("replica1").Staleness > bound })
		for range 100 {
			if w := g.read(inScope(ctx, "cut"), 1); w.Port != second.Port() {
				t.Fatalf("a read ran on port %d", w.Port)
			}
		}
		if !g.node("replica1").Up {
			t.Error("a replica that lags counts as ill")
		}
		must(t, first.RestoreReceiver(ctx))
		eventually(t, "the replica to come back", func() bool { return g.read(inScope(ctx, "back"), 1).Port == first.Port() })
	})

	t.Run("replay paused: staleness grows, each call's bound is kept", func(t *testing.T) {
		stop := g.writing()
		defer stop()
		g.allInUse()
		must(t, second.PauseReplay(ctx))
		grown := g.node("replica2").Staleness
		for range 3 {
			next := grown + 300*time.Millisecond
			eventually(t, "staleness to grow", func() bool { return g.node("replica2").Staleness > next })
			grown = g.node("replica2").Staleness
		}
		eventually(t, "the paused replica to look stale", func() bool { return g.node("replica2").Staleness > bound })
		for _, tt := range []struct {
			name string
			ctx  context.Context
			want int
		}{
			{"the configured bound", inScope(ctx, "a"), c.Primary().Port()},
			{"an hour", MaxStaleness(inScope(ctx, "b"), time.Hour), second.Port()},
			{"any", MaxStaleness(inScope(ctx, "c"), AnyStaleness), second.Port()},
			{"one second", MaxStaleness(inScope(ctx, "d"), time.Second), c.Primary().Port()},
		} {
			var w where
			must(t, g.db.WithContext(tt.ctx).Clauses(dbresolver.Use("replica2")).Raw("SELECT inet_server_port() AS port").Scan(&w).Error)
			if w.Port != tt.want {
				t.Errorf("%s: a read ran on port %d, want %d", tt.name, w.Port, tt.want)
			}
		}
		// The own write is not there, however much staleness the caller accepts.
		own := MaxStaleness(inScope(ctx, "own"), AnyStaleness)
		must(t, g.db.WithContext(own).Create(&item{N: 5}).Error)
		var w where
		must(t, g.db.WithContext(own).Clauses(dbresolver.Use("replica2")).Raw("SELECT inet_server_port() AS port").Scan(&w).Error)
		if w.Port != c.Primary().Port() {
			t.Error("a session read behind its own write")
		}
		must(t, second.ResumeReplay(ctx))
		eventually(t, "the replica to come back", func() bool { return g.read(inScope(ctx, "back"), 1).Port == second.Port() })
	})

	t.Run("all replicas lag: the primary, and the reason", func(t *testing.T) {
		stop := g.writing()
		defer stop()
		must(t, first.PauseReplay(ctx))
		must(t, second.PauseReplay(ctx))
		eventually(t, "both to look stale", func() bool {
			return g.node("replica1").Staleness > bound && g.node("replica2").Staleness > bound
		})
		before := g.node("primary").Decisions["lag"]
		if w := g.read(inScope(ctx, "lag"), 1); w.Standby {
			t.Error("a read ran on a stale replica")
		}
		if got := g.node("primary").Decisions["lag"]; got != before+1 {
			t.Errorf("the reason lag was counted %d times", got-before)
		}
		must(t, first.ResumeReplay(ctx))
		must(t, second.ResumeReplay(ctx))
		g.allInUse()
	})

	t.Run("R03 insert position at a page's border", func(t *testing.T) {
		must(t, c.WaitCaughtUp(ctx))
		// Messages that belong to no transaction, so that nothing is written
		// after the one that fills a page.
		conn, err := c.Primary().Conn(ctx, g.name)
		must(t, err)
		defer conn.Close(ctx)
		for end := time.Now().Add(time.Minute); ; {
			_, err = conn.Exec(ctx, `DO $$ BEGIN FOR i IN 1..1000000 LOOP
				PERFORM pg_logical_emit_message(false, 'x', repeat('a', 8 * (random() * 5)::int));
				EXIT WHEN (pg_current_wal_insert_lsn() - '0/0') % 8192 = 24; END LOOP; END $$`)
			must(t, err)
			start := g.r.now()
			var seen time.Duration
			eventually(t, "a replica to be known as fresh as of the border", func() bool {
				seen = time.Duration(g.r.now() - start)
				return g.r.replicas()[0].fresh.Load() > start && g.r.replicas()[1].fresh.Load() > start
			})
			var at int64
			must(t, conn.QueryRow(ctx, "SELECT ((pg_current_wal_insert_lsn() - '0/0') % 8192)::bigint").Scan(&at))
			if at == 24 {
				t.Logf("fresh %v after the position came to the border", seen)
				return
			}
			if time.Now().After(end) {
				t.Fatal("the position never stays at a border")
			}
		}
	})

	t.Run("open transaction holds the insert position", func(t *testing.T) {
		conn, err := c.Primary().Conn(ctx, g.name)
		must(t, err)
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "BEGIN; INSERT INTO items (n) VALUES (8)")
		must(t, err)
		start := g.r.now()
		eventually(t, "the replicas to be fresh while it is open", func() bool {
			return g.r.replicas()[0].fresh.Load() > start && g.r.replicas()[1].fresh.Load() > start
		})
		if d := time.Duration(g.r.now() - start); d > 5*time.Second { // the server's own next record may be 15 s away
			t.Errorf("it took %v", d)
		}
	})
}

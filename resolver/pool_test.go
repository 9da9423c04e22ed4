package resolver

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// backends counts what a server says is connected to a database, probes aside.
func backends(t *testing.T, n *testbed.Node, db string) (pool, probes int) {
	t.Helper()
	conn, err := n.Conn(deadline(t), "")
	must(t, err)
	defer conn.Close(context.Background())
	must(t, conn.QueryRow(deadline(t), `SELECT count(*) FILTER (WHERE application_name <> 'infra:probe'),
		count(*) FILTER (WHERE application_name = 'infra:probe') FROM pg_stat_activity WHERE datname = $1`, db).Scan(&pool, &probes))
	return pool, probes
}

func TestPoolsAreWarmedAndKeptAtMin(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, func(cfg *Config) { cfg.Pool = Pool{Min: 4, Max: 6} })
	for _, n := range c.Nodes() {
		var pool, probes int
		eventually(t, "4 connections and 1 probe on "+n.Name(), func() bool {
			pool, probes = backends(t, n, g.name)
			return pool == 4 && probes == 1
		})
	}
	// They die, and are replaced, while statements go on.
	must(t, c.Replica(0).Exec(deadline(t), "", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", g.name))
	rs := g.readAllTheTime(2)
	rs.more(t, 200)
	eventually(t, "4 connections again", func() bool { pool, _ := backends(t, c.Replica(0), g.name); return pool >= 4 })
	rs.stop()
	// Never above Max, whoever asks.
	done := make(chan error, 20)
	for range cap(done) {
		go func() {
			done <- g.db.WithContext(Primary(deadline(t))).Raw("SELECT pg_sleep(0.1)").Scan(new(string)).Error
		}()
	}
	most := 0
	for i := 0; i < cap(done); {
		select {
		case err := <-done:
			must(t, err)
			i++
		default:
			pool, _ := backends(t, c.Primary(), g.name)
			most = max(most, pool)
		}
	}
	if most > 6 {
		t.Errorf("%d connections to a pool of at most 6", most)
	}
	if p := g.node("primary").Pool; p.Max != 6 || p.Waits == 0 || p.Waited == 0 {
		t.Errorf("%+v", p)
	}
}

func TestLimitSetBeforeStandsUnlessMaxSaysOtherwise(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	name := c.NewDatabase(t)
	for _, tt := range []struct{ max, want int }{{0, 3}, {7, 7}} {
		db, err := gorm.Open(postgres.Open(c.Primary().DSN(name)), &gorm.Config{Logger: logger.Discard})
		must(t, err)
		pool, err := db.DB()
		must(t, err)
		pool.SetMaxOpenConns(3)
		r := New(Config{Pool: Pool{Max: tt.max, Min: 3}, Logger: quiet()})
		must(t, db.Use(r))
		if got := pool.Stats().MaxOpenConnections; got != tt.want {
			t.Errorf("Max %d over a limit of 3 gives %d, want %d", tt.max, got, tt.want)
		}
		eventually(t, "the pool to be warm", func() bool { return pool.Stats().OpenConnections == 3 })
		must(t, r.Close())
		must(t, pool.Close())
	}
}

func TestPoolOfAPrimaryAloneIsTheCallers(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	name := c.NewDatabase(t)
	down := DSNs("postgres://127.0.0.1:1/none?sslmode=disable")
	for what, tt := range map[string]struct {
		cfg              Config
		limit, max, open int
	}{
		"nothing is set":             {Config{}, 0, 0, 1},
		"nothing, over a limit":      {Config{}, 7, 7, 1},
		"one field is set":           {Config{Pool: Pool{IdleTimeout: time.Minute}}, 0, 50, 10},
		"there are replicas":         {Config{Replicas: down}, 0, 50, 10},
		"replicas, and a limit of 7": {Config{Replicas: down}, 7, 7, 7},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			db, err := gorm.Open(postgres.Open(c.Primary().DSN(name)), &gorm.Config{Logger: logger.Discard})
			must(t, err)
			pool, err := db.DB()
			must(t, err)
			defer pool.Close()
			pool.SetMaxIdleConns(1)
			pool.SetMaxOpenConns(tt.limit)
			tt.cfg.Logger, tt.cfg.Probe = quiet(), patient
			r := New(tt.cfg)
			must(t, db.Use(r))
			if tt.open > 1 {
				eventually(t, "the pool to be warm", func() bool { return pool.Stats().OpenConnections == tt.open })
			}
			must(t, r.Close()) // joins whoever warms it
			if s := pool.Stats(); s.MaxOpenConnections != tt.max || tt.open == 1 && s.OpenConnections != 1 {
				t.Errorf("%+v, want at most %d and %d open", s, tt.max, tt.open)
			}
			if s := r.Nodes()[0].Pool; s.Max != tt.max {
				t.Errorf("%+v", s)
			}
			// The idle connections of a burst: one is kept, as the caller said.
			if tt.open == 1 {
				var conns []*sql.Conn
				for range 3 {
					conn, err := pool.Conn(deadline(t))
					must(t, err)
					conns = append(conns, conn)
				}
				for _, conn := range conns {
					must(t, conn.Close())
				}
				if s := pool.Stats(); s.Idle != 1 {
					t.Errorf("%d idle connections, 1 was asked for", s.Idle)
				}
			}
		})
	}
}

func TestCloseSendsStatementsToThePrimary(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	rs := g.readAllTheTime(4)
	rs.more(t, 50)
	must(t, g.r.Close())
	must(t, g.r.Close())
	rs.more(t, 50)
	rs.stop()
	if recovering(t, g.db) {
		t.Error("after Close a read ran on a replica")
	}
	must(t, g.db.Create(&item{N: 1}).Error)
	eventually(t, "the replicas to be left", func() bool {
		pool, probes := backends(t, c.Replica(0), g.name)
		return pool == 0 && probes == 0
	})
	if err := g.r.Ready(deadline(t)); err != nil {
		t.Error(err)
	}
	if _, err := (&router{g.r}).PositionAfter(deadline(t), time.Now()); err == nil {
		t.Error("a closed Resolver told a position")
	}
	if n := g.r.Nodes(); len(n) != 3 {
		t.Errorf("%d nodes after Close", len(n))
	}
	must(t, New(Config{}).Close())
}

func TestPositionAfterLiesAboveWhatWasCommitted(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	// A forced sample may take longer than the usual interval while tests crowd
	// the machine.
	slow := func(cfg *Config) { cfg.Probe.Interval = 5 * time.Second }
	for name, g := range map[string]*rig{
		"with replicas":    newRig(t, c, slow),
		"without replicas": newRig(t, c, func(cfg *Config) { slow(cfg); cfg.Replicas = nil }),
	} {
		h, err := hook.Attach(g.db)
		must(t, err)
		pos := h.Positioner()
		last := uint64(0)
		for range 20 {
			must(t, g.db.Create(&item{N: 1}).Error)
			var end int64
			must(t, g.db.WithContext(Primary(deadline(t))).Raw("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").Scan(&end).Error)
			lsn, err := pos.PositionAfter(deadline(t), time.Now())
			must(t, err)
			if lsn < uint64(end) || lsn < last {
				t.Fatalf("%s: position %d is below %d or %d", name, lsn, end, last)
			}
			last = lsn
		}
		if again, err := pos.PositionAfter(deadline(t), time.Now().Add(-time.Hour)); err != nil || again < last {
			t.Errorf("%s: a sample that is there gives %d, %v", name, again, err)
		}
	}
}

func TestMinLSNAndNeedPrimaryAreKept(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	h, err := hook.Attach(g.db)
	must(t, err)
	want := &needy{}
	remove, err := h.Register(want)
	must(t, err)
	defer remove()
	at := func() bool { return recovering(t, g.db.WithContext(inScope(deadline(t), "fill"))) }
	if !at() {
		t.Error("without a need the replica is not used")
	}
	want.lsn = g.node("replica1").LSN
	want.lsn = min(want.lsn, g.node("replica2").LSN)
	if !at() {
		t.Error("a position that is replayed keeps from the replica")
	}
	want.lsn = 1 << 60
	if at() {
		t.Error("a replica was used that is below the position")
	}
	if d := g.node("primary").Decisions; d["cache_fill"] != 1 || d["position"] != 0 {
		t.Errorf("%v", d)
	}
	want.lsn, want.primary = 0, true
	if at() {
		t.Error("a fill that needs the primary was read from a replica")
	}
	if d := g.node("primary").Decisions; d["cache_fill"] != 2 || d["asked"] != 0 { // nobody asked
		t.Errorf("%v", d)
	}
	recovering(t, g.db.WithContext(Primary(inScope(deadline(t), "fill"))))
	if d := g.node("primary").Decisions; d["cache_fill"] != 2 || d["asked"] != 1 { // somebody did
		t.Errorf("%v", d)
	}
}

// needy is a cache that never holds anything.
type needy struct {
	lsn     uint64
	primary bool
}

func (n *needy) Serves(*hook.Record) bool { return true }
func (n *needy) Serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	r.NeedPrimary = n.primary
	r.NeedLSN(n.lsn)
	return r.Next(ctx)
}

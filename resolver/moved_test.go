package resolver

import (
	"database/sql"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// address is one that leads to one server and later to another, while the
// connections from before live on, as those through a load balancer or a virtual
// address may.
type address struct{ target atomic.Pointer[string] }

func openAddress(t *testing.T, target string) (d *address, addr string) {
	t.Helper()
	d = &address{}
	d.target.Store(&target)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", *d.target.Load()) //nolint:noctx // of loopback
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
					_ = way[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return d, l.Addr().String()
}

// endProbes ends the connections of all probes of the rig's database on n.
func (g *rig) endProbes(n *testbed.Node) {
	g.t.Helper()
	conn, err := n.Conn(deadline(g.t), g.name)
	must(g.t, err)
	defer conn.Close(deadline(g.t))
	_, err = conn.Exec(deadline(g.t), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'infra:probe' AND datname = $1", g.name)
	must(g.t, err)
}

// The probe is the first to come to the other server. What it says of that must not
// be believed of the connections that the pool has to the one before.
func TestR13ConnectionsToTheServerOfBeforeAreNotUsed(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, nil)
	g.close()
	ctx := deadline(t)
	d, addr := openAddress(t, c.Replica(0).Addr())
	cfg := Config{Replicas: DSNs(testbed.DSN(addr, g.name)), Probe: patient, Pool: Pool{Max: 4, Min: 4}, Logger: quiet()}
	g.open(cfg)
	eventually(t, "a full pool", func() bool { return g.node("replica1").Pool.Open == 4 && g.read(inScope(ctx, "x"), 1).Standby })
	var held []*sql.Rows // connections in use, which are given back later
	for range 3 {
		rows, err := g.db.WithContext(inScope(ctx, "slow")).Raw("SELECT n FROM items").Rows()
		must(t, err)
		held = append(held, rows)
	}
	must(t, c.Replica(0).PauseReplay(ctx))
	addrOfSecond := c.Replica(1).Addr()
	d.target.Store(&addrOfSecond)
	boot := g.r.replicas()[0].boot.Load()
	g.endProbes(c.Replica(0))
	eventually(t, "the probe to reach the second server", func() bool { return g.r.replicas()[0].boot.Load() != boot })
	session := inScope(ctx, "session")
	must(t, setN(g.db.WithContext(session), 5))
	wrote := g.r.now()
	n := g.r.replicas()[0]
	eventually(t, "the second server to have the write", func() bool { return n.usable.Load() && n.fresh.Load() > wrote })
	for _, rows := range held {
		must(t, rows.Close())
	}
	for range 8 {
		if w := g.read(session, 1); w.N != 5 {
			t.Fatalf("read %+v after writing 5: the server of before is at %s, that of now at %s", w, c.Replica(0).Addr(), c.Replica(1).Addr())
		}
	}
	must(t, c.Replica(0).ResumeReplay(ctx))
}

// An address that moves to the promoted standby, while the server that was the primary
// lives and takes writes: those of a pool's connections to it would be lost.
func TestR11ConnectionsToThePrimaryOfBeforeAreNotUsed(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, nil)
	g.close()
	ctx := deadline(t)
	old, next := c.Primary(), c.Replica(0)
	d, addr := openAddress(t, old.Addr())
	g.primary = testbed.DSN(addr, g.name)
	g.open(Config{Replicas: DSNs(c.Replica(1).DSN(g.name)), Probe: patient, Pool: Pool{Max: 4, Min: 4}, Logger: quiet()})
	eventually(t, "a full pool", func() bool { return g.node("primary").Pool.Open == 4 })
	var held []*sql.Rows
	for range 4 {
		rows, err := g.db.WithContext(Primary(inScope(ctx, "slow"))).Raw("SELECT n FROM items").Rows()
		must(t, err)
		held = append(held, rows)
	}
	must(t, next.Promote(ctx))
	to := next.Addr()
	d.target.Store(&to)
	g.endProbes(old)
	eventually(t, "the probe to reach the promoted one", func() bool {
		g.r.mu.Lock()
		defer g.r.mu.Unlock()
		return g.r.timelineID == 2 && g.r.vacancy() == ""
	})
	for _, rows := range held {
		must(t, rows.Close())
	}
	for i := range 8 {
		must(t, g.db.WithContext(ctx).Create(&item{N: int64(1000 + i)}).Error)
	}
	conn, err := next.Conn(ctx, g.name)
	must(t, err)
	defer conn.Close(ctx)
	var there int
	must(t, conn.QueryRow(ctx, "SELECT count(*) FROM items WHERE n >= 1000").Scan(&there))
	if there != 8 {
		t.Errorf("%d of 8 acknowledged writes are on the promoted server", there)
	}
}

// A connection may come back to its pool long after the renewal that it is from before.
func TestLifetimeAfterARenewal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		since, configured, want time.Duration
		done                    bool
	}{
		{0, time.Hour, time.Millisecond, false},
		{20 * time.Millisecond, time.Hour, 20 * time.Millisecond, false},
		{59 * time.Minute, time.Hour, 59 * time.Minute, false},
		{time.Hour, time.Hour, time.Hour, true},
		{2 * time.Hour, time.Hour, time.Hour, true},
		{2 * time.Hour, 0, 2 * time.Hour, false}, // for ever, but for those from before
	} {
		if d, done := lifetimeAt(tt.since, tt.configured); d != tt.want || done != tt.done {
			t.Errorf("%v after a renewal, of %v: %v, %v", tt.since, tt.configured, d, done)
		}
	}
}

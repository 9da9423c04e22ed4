package resolver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// writers insert rows with ids of their own all the time, each in a transaction
// of its own or, with bare set, as a statement that commits by itself.
type writers struct {
	next, acked, failed, unknown atomic.Int64

	mu    sync.Mutex // guards the rest
	sure  []int64    // acknowledged
	maybe []int64    // outcome unknown
	never []int64    // failed for sure
	last  time.Time  // of an acknowledgement
	gap   time.Duration
	stop  func()
}

func (g *rig) writeAllTheTime(n int, bare bool) *writers {
	ws := &writers{}
	ws.next.Store(1000)
	ctx, cancel := context.WithCancel(deadline(g.t))
	db := g.db.Session(&gorm.Session{SkipDefaultTransaction: bare})
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				id := ws.next.Add(1)
				wctx, done := context.WithTimeout(inScope(context.Background(), "writer"), 5*time.Second)
				err := db.WithContext(wctx).Create(&item{ID: id, N: 1}).Error
				done()
				ws.note(id, err)
				time.Sleep(time.Millisecond)
			}
		}()
	}
	ws.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	g.t.Cleanup(ws.stop)
	return ws
}

func (ws *writers) note(id int64, err error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	switch {
	case err == nil:
		ws.acked.Add(1)
		ws.sure = append(ws.sure, id)
		if !ws.last.IsZero() {
			ws.gap = max(ws.gap, time.Since(ws.last))
		}
		ws.last = time.Now()
	case errors.Is(err, ErrOutcomeUnknown):
		ws.unknown.Add(1)
		ws.maybe = append(ws.maybe, id)
	default:
		ws.failed.Add(1)
		ws.never = append(ws.never, id)
	}
}

// pause is the longest time between two acknowledgements.
func (ws *writers) pause() time.Duration {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.gap
}

func (ws *writers) more(t *testing.T, n int64) {
	t.Helper()
	want := ws.acked.Load() + n
	eventually(t, "more writes", func() bool { return ws.acked.Load() >= want })
}

// ids returns how often each id is in the table of a node.
func (g *rig) ids(n *testbed.Node) map[int64]int {
	g.t.Helper()
	ctx := deadline(g.t)
	conn, err := n.Conn(ctx, g.name)
	must(g.t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT id FROM items WHERE id > 1000")
	must(g.t, err)
	defer rows.Close()
	found := map[int64]int{}
	for rows.Next() {
		var id int64
		must(g.t, rows.Scan(&id))
		found[id]++
	}
	must(g.t, rows.Err())
	return found
}

func (g *rig) leader() string {
	for _, n := range g.r.Nodes() {
		if n.Primary {
			return n.Name
		}
	}
	return ""
}

// logless makes items a table that would show an id twice.
func (g *rig) logless() {
	g.t.Helper()
	must(g.t, g.c.Primary().Exec(deadline(g.t), g.name, "ALTER TABLE parts DROP CONSTRAINT parts_item_id_fkey; ALTER TABLE items DROP CONSTRAINT items_pkey"))
	must(g.t, g.c.WaitCaughtUp(deadline(g.t)))
}

func TestR11PromotionUnderLoad(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2, Settings: map[string]string{"wal_keep_size": "64MB"}})
	g := newRig(t, c, func(cfg *Config) {
		cfg.Probe = Probe{}
		cfg.Pool = Pool{Max: 16, Min: 4}
		cfg.FailoverWait = 5 * time.Second
	})
	g.logless()
	ctx := deadline(t)
	g.allInUse()
	old, next, other := c.Primary(), c.Replica(0), c.Replica(1)
	ws := g.writeAllTheTime(4, false)
	ws.more(t, 50)

	must(t, old.StopImmediate())
	must(t, next.Promote(ctx))
	promoted := time.Now()
	eventually(t, "the promotion to be noticed", func() bool { return g.leader() == "replica1" })
	noticed := time.Since(promoted)
	ws.more(t, 1)
	t.Logf("noticed after %v, first write %v after the promotion; longest pause of the writers %v", noticed, time.Since(promoted), ws.pause())
	ws.more(t, 50)
	if s := g.r.Stats(); s.Failovers != 1 || s.LastFailover.From != "primary" || s.LastFailover.To != "replica1" || s.LastFailover.Timeline != 2 || s.LastFailover.Gap <= 0 || s.NoPrimary != "" {
		t.Errorf("stats: %+v", s.LastFailover)
	}
	if r2 := g.node("replica2"); r2.Up {
		t.Errorf("a standby that follows the old primary is used: %+v", r2)
	}

	// The other standby follows, and is used.
	must(t, other.Follow(ctx, next))
	eventually(t, "the other standby to be used", func() bool { return g.node("replica2").Up })
	served := decisions(g.r)["replica2"]
	rs := g.readAllTheTime(2)
	eventually(t, "reads there", func() bool { return decisions(g.r)["replica2"] > served+20 })

	// The old primary comes back as a second one: nothing goes there.
	must(t, old.Start(ctx))
	eventually(t, "the second primary to be seen", func() bool { n := g.node("primary"); return n.Misfit == "wrong role" && n.LastError == "" })
	before := g.ids(old)
	ws.more(t, 100)
	rs.more(t, 100)
	if after := g.ids(old); len(after) != len(before) {
		t.Errorf("%d rows were written to the second primary", len(after)-len(before))
	}
	if g.leader() != "replica1" || g.node("primary").Up {
		t.Error("the second primary is in use")
	}
	// It comes back as a standby and serves.
	must(t, old.RestartAsStandby(ctx, next))
	eventually(t, "the old primary to serve reads", func() bool { return g.node("primary").Up && decisions(g.r)["primary"] > 100 })
	from := g.node("primary").Decisions["replica"]
	eventually(t, "reads on the old primary", func() bool { return g.node("primary").Decisions["replica"] > from+20 })
	rs.stop()
	ws.stop()
	if ws.failed.Load()+ws.unknown.Load() > 20 {
		t.Errorf("%d writes failed, %d with an unknown outcome", ws.failed.Load(), ws.unknown.Load())
	}
	for id, n := range g.ids(next) {
		if n != 1 || slices.Contains(ws.never, id) {
			t.Errorf("id %d is there %d times", id, n)
		}
	}
	t.Logf("%d reads, %d failed; %d writes, %d failed, %d unknown", rs.ok.Load(), rs.failed.Load(), ws.acked.Load(), ws.failed.Load(), ws.unknown.Load())
}

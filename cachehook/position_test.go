package cachehook

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// replicaRouter sends what may go there to a replica, and knows positions when
// it is told to.
type replicaRouter struct {
	observer
	replica              *hook.Node
	position             func() (uint64, error)
	replayed             atomic.Uint64
	onPrimary, onReplica atomic.Int64
}

func (r *replicaRouter) Route(_ context.Context, rec *hook.Record) (*hook.Node, error) {
	if rec.Access != hook.ReadOnly || rec.NeedPrimary || rec.MinLSN() > r.replayed.Load() {
		r.onPrimary.Add(1)
		return r.primary, nil
	}
	r.onReplica.Add(1)
	return r.replica, nil
}

func (r *replicaRouter) PositionAfter(context.Context, time.Time) (uint64, error) {
	return r.position()
}

// A replica that lags must not fill what a newer write emptied: not while the
// position of the write is unknown, and not before the replica has replayed it.
func TestC05LaggingReplicaFillsNothingOld(t *testing.T) {
	t.Parallel()
	testbed.RequirePostgres(t)
	cluster := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	name := cluster.NewDatabase(t)
	dsn := cluster.Primary().DSN(name)
	exec(t, dsn, `CREATE TABLE products (id bigint PRIMARY KEY, name text, price bigint)`, `INSERT INTO products VALUES (1, 'a', 10)`)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(t, cluster.WaitCaughtUp(ctx))

	gcfg := &gorm.Config{Logger: logger.Discard}
	db, err := gorm.Open(postgres.Open(dsn), gcfg)
	must(t, err)
	replica, err := gorm.Open(postgres.Open(cluster.Replica(0).DSN(name)), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	c := New(Config{Logger: quiet, Tables: map[string]Rule{"products": {}}})
	must(t, db.Use(c))
	hub, err := hook.Attach(db)
	must(t, err)
	var lsn atomic.Uint64
	lsn.Store(100)
	known := atomic.Bool{}
	router := &replicaRouter{replica: hub.NewNode("replica", replica.ConnPool)}
	router.outcomes, router.primary = make(map[hook.Outcome]int), hub.Primary()
	router.position = func() (uint64, error) {
		if !known.Load() {
			return 0, errors.New("not known")
		}
		return lsn.Load(), nil
	}
	router.replayed.Store(100)
	remove, err := hub.Register(router)
	must(t, err)
	t.Cleanup(func() {
		_ = c.Close()
		remove()
		for _, g := range []*gorm.DB{db, replica} {
			pool, err := g.DB()
			must(t, err)
			must(t, pool.Close())
		}
	})
	i := &instance{db, c, &router.observer}

	equal(t, "position unknown", i.price(t, 1), 10)
	equal(t, "fills from the primary", router.onPrimary.Load(), 1)
	equal(t, "fills from the replica", router.onReplica.Load(), 0)

	known.Store(true)
	eventually(t, "a fill comes from the replica once the position is known and replayed", 5*time.Second, func() bool {
		c.memory.clear()
		equal(t, "price", i.price(t, 1), 10)
		return router.onReplica.Load() > 0
	})

	must(t, cluster.Replica(0).PauseReplay(ctx))
	lsn.Store(200) // the write's position; the replica stays at 100
	i.setPrice(t, 1, 77)
	for range 50 {
		equal(t, "after the write", i.price(t, 1), 77)
		c.memory.clear()
	}
	must(t, cluster.Replica(0).ResumeReplay(ctx))
	must(t, cluster.WaitCaughtUp(ctx))
	router.replayed.Store(200)
	before := router.onReplica.Load()
	eventually(t, "the replica fills again", 5*time.Second, func() bool {
		c.memory.clear()
		equal(t, "price", i.price(t, 1), 77)
		return router.onReplica.Load() > before
	})
}

// aPosition tells always the same.
type aPosition uint64

func (p aPosition) PositionAfter(context.Context, time.Time) (uint64, error) { return uint64(p), nil }

// A replica must have all that a result depends on, whichever was written last.
func TestC05FloorIsTheHighestPositionOfAllTags(t *testing.T) {
	t.Parallel()
	m := newMirror(false)
	p := &positions{find: func() positioner { return aPosition(1) }}
	defer p.stop()
	var cells []*cell
	var stamps []stamp
	for i, lsn := range []uint64{20, 30, 10} {
		c, s := m.cell(tableTag(string(rune('a'+i))), true), mint()
		c.replayed.Store(&replayed{s, lsn})
		cells, stamps = append(cells, c), append(stamps, s)
	}
	lsn, known := p.floor(cells, stamps)
	equal(t, "known", known, true)
	equal(t, "the floor", lsn, uint64(30))
	stamps[1] = mint() // written since
	_, known = p.floor(cells, stamps)
	equal(t, "known after a write", known, false)
}

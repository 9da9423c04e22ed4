package resolver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestR13NodesComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	var dsns []string
	g := newRig(t, c, func(cfg *Config) {
		for _, n := range cfg.Replicas {
			dsns = append(dsns, n.DSN)
		}
		cfg.Replicas = nil
		cfg.Pool = Pool{Max: 6, Min: 1}
	})
	rs := g.readAllTheTime(3)
	// Read-only transactions, whose node must outlive them.
	ctx, cancel := context.WithCancel(deadline(t))
	var txs atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			err := g.db.WithContext(inScope(context.Background(), "tx")).Transaction(func(tx *gorm.DB) error {
				for range 3 {
					if err := tx.First(&item{}, 1).Error; err != nil {
						return err
					}
				}
				return nil
			}, &sql.TxOptions{ReadOnly: true})
			if err != nil {
				t.Errorf("a transaction failed: %v", err)
				return
			}
			txs.Add(1)
		}
	}()
	for round := range 6 {
		name := fmt.Sprintf("r%d", round)
		node := Node{Name: name, DSN: dsns[round%2]}
		if round%3 == 2 {
			node = Node{Name: name, Dialector: postgres.Open(dsns[round%2])}
		}
		must(t, g.r.AddReplica(ctx, node))
		if err := g.r.AddReplica(ctx, node); err == nil {
			t.Error("the same name was added twice")
		}
		eventually(t, name+" to be read", func() bool { return g.node(name).Decisions["replica"] > 20 })
		if round%2 == 0 {
			must(t, g.r.Drain(name))
			if s := g.node(name); !s.Draining {
				t.Error("not shown as draining")
			}
			must(t, g.r.Resume(name))
			before := g.node(name).Decisions["replica"]
			eventually(t, name+" to be read again", func() bool { return g.node(name).Decisions["replica"] > before })
		}
		before := txs.Load()
		must(t, g.r.RemoveReplica(ctx, name))
		if len(g.r.Nodes()) != 1 {
			t.Errorf("%d nodes are left", len(g.r.Nodes()))
		}
		rs.more(t, 20)
		eventually(t, "transactions to go on", func() bool { return txs.Load() > before+3 || t.Failed() })
	}
	cancel()
	<-ended
	rs.stop()
	if rs.failed.Load() > 0 {
		t.Errorf("%d reads failed", rs.failed.Load())
	}
}

func TestDrainedNodeKeepsItsWorkAndGetsNoMore(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Replicas = cfg.Replicas[:1] })
	g.allInUse()
	rows, err := g.db.WithContext(inScope(deadline(t), "reader")).Model(&item{}).Rows()
	must(t, err)
	must(t, g.r.Drain("replica1"))
	ctx, cancel := context.WithTimeout(deadline(t), 50*time.Millisecond)
	defer cancel()
	if err := g.r.RemoveReplica(ctx, "replica1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("removed while it is read: %v", err)
	}
	if !rows.Next() {
		t.Errorf("the rows under way ended: %v", rows.Err())
	}
	before := g.node("replica1").Decisions["replica"]
	if recovering(t, g.db.WithContext(inScope(deadline(t), "other"))) || g.node("replica1").Decisions["replica"] != before {
		t.Error("a drained node was read")
	}
	// Nor by who had chosen it before it was drained.
	if n := g.r.replicas()[0]; n.enter(Normal) || n.inFlight.Load() != 1 {
		t.Errorf("a statement more is let in, with %d in flight", n.inFlight.Load())
	}
	must(t, rows.Close())
	must(t, g.r.RemoveReplica(deadline(t), "replica1"))
	if err := g.r.RemoveReplica(deadline(t), "replica1"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("removed twice: %v", err)
	}
	if err := g.r.Drain("primary"); err == nil {
		t.Error("the primary was drained")
	}
}

func TestFaultyNodeIsNotAdded(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Groups = []Group{{Name: "reports"}} })
	for what, n := range map[string]Node{
		"a group's name": {Name: "reports", DSN: lost},
		"without name":   {DSN: lost}, "taken": {Name: "replica1", DSN: lost}, "reserved": {Name: "primary", DSN: lost},
		"empty": {Name: "x"}, "other kind": {Name: "x", Dialector: other{}},
	} {
		if err := g.r.AddReplica(deadline(t), n); err == nil {
			t.Errorf("%s: added", what)
		}
	}
	if err := g.r.AddReplica(deadline(t), Node{Name: "x", DSN: lost}, "nobody"); err == nil {
		t.Error("added to a group that is none")
	}
	if n := len(g.r.Nodes()); n != 3 {
		t.Errorf("%d nodes", n)
	}
	// One that is down is there, and out.
	must(t, g.r.AddReplica(deadline(t), Node{Name: "x", DSN: lost}))
	if s := g.node("x"); s.Up || s.LastError == "" {
		t.Errorf("%+v", s)
	}
	must(t, g.r.Close())
	if err := g.r.AddReplica(deadline(t), Node{Name: "y", DSN: lost}); err == nil {
		t.Error("added after Close")
	}
	if err := g.r.RemoveReplica(deadline(t), "x"); err == nil {
		t.Error("removed after Close")
	}
}

// other is a dialector of another database.
type other struct{ postgres.Dialector }

func (other) Name() string { return "other" }

package resolver

import (
	"context"
	"errors"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// lagging is a rig whose one replica may be as far behind as it likes.
func lagging(t *testing.T) (*rig, context.Context) {
	t.Helper()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	g := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag = time.Hour
		cfg.Probe.Interval = 20 * time.Millisecond
	})
	g.allInUse()
	return g, deadline(t)
}

// pauseProven stops the replay when the replica is known to have all that was
// committed by now.
func (g *rig) pauseProven(ctx context.Context) {
	g.t.Helper()
	now := g.r.now()
	eventually(g.t, "a sample of the replica", func() bool { return g.r.replicas()[0].fresh.Load() > now })
	must(g.t, g.c.Replica(0).PauseReplay(ctx))
}

// goOn lets the replica replay, until strangers read there.
func (g *rig) goOn(ctx context.Context) {
	g.t.Helper()
	must(g.t, g.c.Replica(0).ResumeReplay(ctx))
	eventually(g.t, "back on the replica", func() bool { return g.read(inScope(ctx, "stranger"), 1).Standby })
}

func setN(tx *gorm.DB, n int64) error { return tx.Exec("UPDATE items SET n = ? WHERE id = 1", n).Error }

func TestAScopeSeesWhatItsStatementsWroteWhoeverBeganTheTransaction(t *testing.T) {
	t.Parallel()
	g, ctx := lagging(t)
	n := int64(0)
	for name, write := range map[string]func(ctx context.Context, n int64, meanwhile func()) error{
		"Begin": func(ctx context.Context, n int64, meanwhile func()) error {
			tx := g.db.Begin()
			err := setN(tx.WithContext(ctx), n)
			meanwhile()
			return errors.Join(err, tx.Commit().Error)
		},
		"another scope's": func(ctx context.Context, n int64, meanwhile func()) error {
			return g.db.WithContext(inScope(context.Background(), "other")).Transaction(func(tx *gorm.DB) error {
				defer meanwhile()
				return tx.WithContext(ctx).Model(&item{}).Where("id = 1").Update("n", n).Error
			})
		},
		"for more than are remembered": func(ctx context.Context, n int64, meanwhile func()) error {
			return g.db.Transaction(func(tx *gorm.DB) error {
				defer meanwhile()
				for range maxAuthors {
					if err := setN(tx.WithContext(inScope(context.Background(), "other")), n); err != nil {
						return err
					}
				}
				return setN(tx.WithContext(ctx), n)
			})
		},
	} {
		n++
		request := inScope(ctx, "request")
		before := g.r.unscoped.floor(g.r.now())
		must(t, write(request, n, func() { g.pauseProven(ctx) }))
		if got := g.read(request, 1); got.N != n {
			t.Errorf("%s: the scope reads %d after it wrote %d", name, got.N, n)
		}
		all := name == "for more than are remembered"
		if noted := g.r.unscoped.floor(g.r.now()) != before; noted != all {
			t.Errorf("%s: all scopes must see it: %v, want %v", name, noted, all)
		}
		g.goOn(ctx)
	}
}

func TestAScopeSeesWhatWasWrittenWithoutOne(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(db *gorm.DB) error{
		"autocommit":  func(db *gorm.DB) error { return setN(db, 5) },
		"transaction": func(db *gorm.DB) error { return db.Model(&item{}).Where("id = 1").Update("n", 5).Error },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, ctx := lagging(t)
			must(t, g.c.Replica(0).PauseReplay(ctx))
			request := inScope(ctx, "request")
			must(t, write(g.db))
			if got := g.read(request, 1); got.N != 5 {
				t.Errorf("the scope reads %d after the bare db wrote 5", got.N)
			}
			g.goOn(ctx)
		})
	}
}

package resolver

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/testbed"
)

// One replica has stopped replaying, but is far from its bound: whoever does not
// compare with his own write reads behind it half of the time.
func TestOwnWritesAreReadWhileAReplicaIsPaused(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag = time.Hour
		cfg.Probe.Interval = 20 * time.Millisecond
	})
	g.allInUse()
	ctx := deadline(t)
	must(t, c.Replica(0).PauseReplay(ctx))

	write := map[string]func(ctx context.Context, id, n int64) error{
		"autocommit": func(ctx context.Context, id, n int64) error {
			return g.db.WithContext(ctx).Exec("UPDATE items SET n = ? WHERE id = ?", n, id).Error
		},
		"default transaction": func(ctx context.Context, id, n int64) error {
			return g.db.WithContext(ctx).Model(&item{}).Where("id = ?", id).Update("n", n).Error
		},
		"transaction": func(ctx context.Context, id, n int64) error {
			tx := g.db.WithContext(ctx).Begin()
			return errors.Join(tx.Exec("UPDATE items SET n = ? WHERE id = ?", n, id).Error, tx.Commit().Error)
		},
		"returning": func(ctx context.Context, id, n int64) error {
			var got int64
			return g.db.WithContext(ctx).Raw("UPDATE items SET n = ? WHERE id = ? RETURNING n", n, id).Scan(&got).Error
		},
	}
	var stale, onReplica, reads int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, w := range write {
		it := item{}
		must(t, g.db.WithContext(inScope(ctx, "setup")).Create(&it).Error)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := int64(1); n <= 60; n++ {
				ctx := inScope(ctx, "request")
				if err := w(ctx, it.ID, n); err != nil {
					t.Error(err)
					return
				}
				// Until a replica has it, and once more from there.
				for range 400 {
					var got where
					if err := g.db.WithContext(ctx).Raw("SELECT pg_is_in_recovery() AS standby, inet_server_port() AS port, n FROM items WHERE id = ?", it.ID).Scan(&got).Error; err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					reads++
					if got.N != n {
						stale++
					}
					if got.Standby {
						onReplica++
					}
					if got.Port == c.Replica(0).Port() {
						t.Errorf("an own write was looked for on the paused replica")
					}
					mu.Unlock()
					if got.Standby || n%3 != 0 {
						break
					}
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	wg.Wait()
	t.Logf("%d reads, %d on a replica, %d stale", reads, onReplica, stale)
	if stale > 0 || onReplica < 40 {
		t.Errorf("%d of %d reads were stale, %d ran on a replica", stale, reads, onReplica)
	}

	// Without a scope the process is the session: also what a scope wrote.
	g.close()
	g.open(Config{
		Replicas: DSNs(g.nodes...), MaxLag: time.Hour, Pool: Pool{Max: 8, Min: 1}, Logger: quiet(),
		Probe: Probe{Interval: 20 * time.Millisecond, Timeout: 10 * time.Second},
	})
	bare := context.Background()
	eventually(t, "a bare read to go to a replica", func() bool { return g.read(bare, 1).Standby })
	for n := int64(1); n <= 30; n++ {
		wctx := bare
		if n%2 == 0 {
			wctx = inScope(bare, "writer")
		}
		must(t, g.db.WithContext(wctx).Exec("UPDATE items SET n = ? WHERE id = 1", n).Error)
		if w := g.read(bare, 1); w.N != n {
			t.Fatalf("read %d after writing %d", w.N, n)
		}
		if n%10 == 0 {
			eventually(t, "a bare read to go to a replica again", func() bool {
				w := g.read(bare, 1)
				if w.N != n {
					t.Fatalf("read %d after writing %d", w.N, n)
				}
				return w.Standby
			})
		}
	}
	must(t, c.Replica(0).ResumeReplay(ctx))
}

func TestWhatWroteNothingBindsNobody(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	ctx := inScope(deadline(t), "request")
	tx := g.db.WithContext(ctx).Begin()
	must(t, tx.Create(&item{N: 1}).Error)
	must(t, tx.Rollback().Error)
	must(t, g.db.WithContext(ctx).Begin(&sql.TxOptions{ReadOnly: true}).Commit().Error)
	if err := g.db.WithContext(ctx).Exec("INSERT INTO items (id) VALUES (1)").Error; err == nil {
		t.Fatal("a double key was accepted")
	}
	if floorOf(ctx, g.r) != 0 {
		t.Error("a session that wrote nothing has an own write to see")
	}
	// What it was shown on the primary holds it there until a replica has it.
	eventually(t, "the session to read from a replica", func() bool {
		time.Sleep(2 * g.r.cfg.Probe.Interval) //nolint:forbidigo // the session rests
		return g.read(ctx, 1).Standby
	})
	own := item{N: 2}
	must(t, g.db.WithContext(ctx).Create(&own).Error)
	if w := g.read(ctx, own.ID); w.N != 2 {
		t.Error("a session does not see its own write")
	}
	if w := g.read(inScope(deadline(t), "other"), 1); !w.Standby {
		t.Error("another request's reads are held to the primary")
	}
	// A scope that has ended is none, and the process is the session.
	ended, s, _ := scope.Begin(deadline(t), "ended")
	s.End()
	must(t, g.db.WithContext(ctx).Model(&own).Update("n", 3).Error)
	if w := g.read(ended, own.ID); w.N != 3 {
		t.Error("after the scope's end a write of the process is not seen")
	}
}

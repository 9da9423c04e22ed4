package hook_test

import (
	"context"
	"database/sql"
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

func openHub(t *testing.T, dsn string) (*gorm.DB, *hook.Hub) {
	t.Helper()
	db, err := gorm.Open(postgres.Open(dsn), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	home, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = home.Close() })
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	return db, hub
}

func TestEverythingFollowsThePrimary(t *testing.T) {
	t.Parallel()
	cluster := testbed.SharedCluster(t)
	name := cluster.NewDatabase(t)
	db, hub := openHub(t, cluster.Primary().DSN(name))
	home, _ := db.DB()
	other := openPool(t, cluster.Replica(0).DSN(name))
	node := hub.NewNode("other", other)
	defer node.Close()

	standby := func(db *gorm.DB) (yes bool) {
		t.Helper()
		if err := db.Raw("SELECT pg_is_in_recovery()").Scan(&yes).Error; err != nil {
			t.Fatal(err)
		}
		return yes
	}
	all := func(want bool, wantPool *sql.DB) {
		t.Helper()
		if pool, _ := db.DB(); pool != wantPool {
			t.Error("db.DB() is another pool")
		}
		if standby(db) != want || standby(db.Session(&gorm.Session{PrepareStmt: true})) != want {
			t.Error("a statement did not follow")
		}
		if err := db.Transaction(func(tx *gorm.DB) error {
			if standby(tx) != want {
				t.Error("a transaction did not follow")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := db.Connection(func(c *gorm.DB) error {
			if standby(c) != want {
				t.Error("a pinned connection did not follow")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	all(false, home)
	tx := db.Begin()
	hub.SetPrimary(node)
	all(true, other)
	if standby(tx) {
		t.Error("an open transaction moved")
	}
	tx.Rollback()
	if hub.Primary() != node || hub.Home() == node {
		t.Error("the hub names another node")
	}
	hub.SetPrimary(nil)
	all(false, home)
}

// thrifty gives a read on the first node a budget and then the second node.
type thrifty struct {
	first, second *hook.Node
	budget        time.Duration
	told          atomic.Pointer[error]
}

func (f *thrifty) Route(context.Context, *hook.Record) (*hook.Node, error) { return f.first, nil }
func (f *thrifty) Retry(_ context.Context, _ *hook.Record, err error) *hook.Node {
	f.told.Store(&err)
	return f.second
}
func (f *thrifty) Done(*hook.Record, *hook.Node, error, time.Duration) {}
func (f *thrifty) RouteTx(context.Context, *sql.TxOptions, hook.Hint) (*hook.Node, error) {
	return f.first, nil
}
func (f *thrifty) Budget(context.Context, *hook.Node) time.Duration { return f.budget }

func TestAnAttemptWithABudgetLeavesTimeForTheNext(t *testing.T) {
	t.Parallel()
	cluster := testbed.SharedCluster(t)
	name := cluster.NewDatabase(t)
	db, hub := openHub(t, cluster.Primary().DSN(name))
	proxy := testbed.NewProxy(t, cluster.Replica(0).Addr())
	silent := openPool(t, testbed.DSN(proxy.Addr(), name))
	if err := silent.Ping(); err != nil {
		t.Fatal(err)
	}
	node := hub.NewNode("silent", silent)
	defer node.Close()
	r := &thrifty{first: node, second: hub.Primary(), budget: 30 * time.Second}
	remove, err := hub.Register(r)
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	read := func(ctx context.Context) error {
		var v []int
		err := db.WithContext(ctx).Table("generate_series(1, 3) g").Find(&v).Error
		if err == nil && len(v) != 3 {
			t.Errorf("read %v", v)
		}
		return err
	}
	if err := read(t.Context()); err != nil || r.told.Load() != nil {
		t.Fatalf("within the budget: %v", err)
	}
	r.budget = 50 * time.Millisecond
	proxy.Blackhole()
	defer proxy.Cut() // ends pgx's attempts to cancel
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	if err := read(ctx); err != nil || time.Since(began) > 15*time.Second {
		t.Errorf("with a second node: %v after %v", err, time.Since(began))
	}
	if told := r.told.Load(); told == nil || !errors.Is(*told, hook.ErrBudget) || !errors.Is(*told, context.DeadlineExceeded) {
		t.Errorf("the router was told %v", told)
	}
	// The caller's own end is none of the budget's.
	r.second, r.budget = nil, time.Minute
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if err := read(short); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, hook.ErrBudget) {
		t.Errorf("the caller's end gives %v", err)
	}
}

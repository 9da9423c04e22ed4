package resolver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/testbed"
)

// openRegistered opens GORM on dsn and uses what dbresolver's words made, as a
// program does that has changed one.
func openRegistered(t *testing.T, dsn string, cfg *gorm.Config, r *Resolver) *gorm.DB {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = logger.Discard
	}
	db, err := gorm.Open(postgres.Open(dsn), cfg)
	must(t, err)
	pool, err := db.DB()
	must(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	r.given.Logger, r.given.Probe = quiet(), patient
	must(t, db.Use(r))
	t.Cleanup(func() { must(t, r.Close()) })
	must(t, r.Ready(deadline(t)))
	eventually(t, "all nodes to be fit", func() bool {
		for _, n := range r.Nodes() {
			if !n.Up || n.Staleness < 0 || n.Staleness > time.Second {
				return false
			}
		}
		return true
	})
	return db
}

// TestR15DBResolver is dbresolver's own test, with streaming replicas and two
// databases where that has four servers with different rows.
func TestR15DBResolver(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	second := g.two()
	main := g.name
	g.close()
	for _, prepared := range []bool{true, false} {
		t.Run(fmt.Sprintf("PrepareStmt=%v", prepared), func(t *testing.T) {
			r := Register(dbresolver.Config{
				Replicas:          []gorm.Dialector{postgres.Open(g.nodes[0]), postgres.Open(g.nodes[1])},
				TraceResolverMode: true,
			}).Register(dbresolver.Config{
				Sources:           []gorm.Dialector{postgres.Open(c.Primary().DSN(second))},
				Replicas:          []gorm.Dialector{postgres.Open(c.Replica(1).DSN(second))},
				TraceResolverMode: true,
			}, "users", &product{}).SetMaxOpenConns(5)
			db := openRegistered(t, g.primary, &gorm.Config{PrepareStmt: prepared}, r)
			isPrepared := func(db *gorm.DB) {
				t.Helper()
				must(t, db.Error)
				switch db.Statement.ConnPool.(type) {
				case *gorm.PreparedStmtDB, *gorm.PreparedStmtTX:
				default:
					if prepared {
						t.Errorf("expected prepared statements, got %T", db.Statement.ConnPool)
					}
				}
			}
			fresh := func() *gorm.DB { return db.WithContext(inScope(context.Background(), "request")) }
			begins := func(what string, on *gorm.DB, want string) {
				t.Helper()
				tx := on.Begin()
				isPrepared(tx.Find(&order{}))
				if got := servedAt(t, tx.Session(&gorm.Session{NewDB: true}), &order{}); got != want {
					t.Errorf("%s: order comes from %s, want %s", what, got, want)
				}
				must(t, tx.Rollback().Error)
			}
			reads := func(what string, on *gorm.DB, model any, want string) {
				t.Helper()
				isPrepared(on.Session(&gorm.Session{}).First(model))
				if got := servedAt(t, on, model); got != want {
					t.Errorf("%s: comes from %s, want %s", what, got, want)
				}
			}
			for range 3 {
				begins("Begin", fresh(), main+"*")
				begins("Read", fresh().Clauses(dbresolver.Read), main)
				begins("Write", fresh().Clauses(dbresolver.Write), main+"*")
				begins("Use, Write", fresh().Clauses(dbresolver.Use("users"), dbresolver.Write), second+"*")
				begins("Write, Use", fresh().Clauses(dbresolver.Write, dbresolver.Use("users")), second+"*")

				reads("order", fresh(), &order{}, main)
				reads("order, Write", fresh().Clauses(dbresolver.Write), &order{}, main+"*")
				reads("order, Use", fresh().Clauses(dbresolver.Use("users")), &order{}, second)
				reads("order, Use, Write", fresh().Clauses(dbresolver.Use("users"), dbresolver.Write), &order{}, second+"*")
				reads("user", fresh(), &user{}, second)
				reads("user, Write", fresh().Clauses(dbresolver.Write), &user{}, second+"*")
				reads("product", fresh(), &product{}, second)
				reads("product, Write", fresh().Clauses(dbresolver.Write), &product{}, second+"*")

				var u user
				must(t, fresh().Clauses(dbresolver.Write).Preload("Orders").First(&u).Error)
				if len(u.Orders) != 1 || u.Orders[0].OrderNo != main || u.Name != second {
					t.Errorf("preload with Write: %+v", u)
				}
				u = user{}
				must(t, fresh().Preload("Orders", func(tx *gorm.DB) *gorm.DB { return tx.Clauses(dbresolver.Write) }).First(&u).Error)
				if len(u.Orders) != 1 || u.Orders[0].OrderNo != main || u.Name != second {
					t.Errorf("preload with Write inside: %+v", u)
				}

				isPrepared(fresh().Create(&user{Name: "create"}))
				must(t, fresh().Clauses(dbresolver.Write).First(&user{}, "name = ?", "create").Error)
				if g.count(second, "SELECT count(*) FROM users WHERE name = 'create'") != 1 {
					t.Error("the user was not created in the group's database")
				}
				var name string
				must(t, fresh().Raw("select name from users order by id").Row().Scan(&name))
				if name != second {
					t.Errorf("raw SQL reads users from %s", name)
				}
				must(t, fresh().Raw("select name from users where name = ? for update", "create").Row().Scan(&name))
				must(t, fresh().Model(&user{}).Where("name = ?", "create").Update("name", "update").Error)
				must(t, fresh().Clauses(dbresolver.Write).Raw("select name from users where name = ?", "update").Row().Scan(&name))
				for _, text := range []string{" select name from users where name = ?", "\nselect name\nfrom users where name = ?"} {
					must(t, fresh().Raw(text, second).Row().Scan(&name))
				}
				must(t, fresh().Where("name = ?", "update").Delete(&user{}).Error)
				if err := fresh().Clauses(dbresolver.Write).First(&user{}, "name = ?", "update").Error; !errors.Is(err, gorm.ErrRecordNotFound) {
					t.Errorf("after Delete: %v", err)
				}
			}
			for _, n := range r.Nodes() {
				if n.Pool.Max != 5 {
					t.Errorf("%s: at most %d connections, want 5", n.Name, n.Pool.Max)
				}
			}
		})
	}
}

// TestR15ConnPool is dbresolver's own, of the same name.
func TestR15ConnPool(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	second := g.two()
	third := g.c.NewDatabase(t)
	g.close()
	r := Register(dbresolver.Config{
		Sources:  []gorm.Dialector{postgres.Open(c.Primary().DSN(third))},
		Replicas: []gorm.Dialector{postgres.Open(c.Replica(0).DSN(third))},
	}).Register(dbresolver.Config{
		Sources:  []gorm.Dialector{postgres.Open(c.Primary().DSN(second))},
		Replicas: []gorm.Dialector{postgres.Open(c.Replica(1).DSN(second))},
	}, "users", &product{}).SetMaxOpenConns(5)
	db := openRegistered(t, g.primary, &gorm.Config{}, r)
	for _, tt := range []struct {
		name string
		db   *gorm.DB
		want string
	}{
		{"source", db.Clauses(dbresolver.Write), third + "*"},
		{"replica", db.Clauses(dbresolver.Read), third},
		{"table source", db.Table("users").Clauses(dbresolver.Write), second + "*"},
		{"table replica", db.Table("users").Clauses(dbresolver.Read), second},
		{"model source", db.Model(&product{}).Clauses(dbresolver.Write), second + "*"},
		{"model replica", db.Model(&product{}).Clauses(dbresolver.Read), second},
		{"use", db.Clauses(dbresolver.Use("users")), second},
		// Unlike dbresolver's, which gives that of gorm.Open: writes by hand must
		// not end up where no statement goes.
		{"global", db, third + "*"},
		{"table global", db.Table("users"), third + "*"},
	} {
		pool, err := tt.db.DB()
		must(t, err)
		var got string
		must(t, pool.QueryRow("SELECT current_database() || CASE WHEN pg_is_in_recovery() THEN '' ELSE '*' END").Scan(&got))
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	tx := db.Begin()
	must(t, tx.Error)
	var where string
	must(t, tx.Raw("SELECT current_database()").Scan(&where).Error)
	must(t, tx.Rollback().Error)
	if where != third {
		t.Errorf("Begin begins on %s, and statements outside of it go to %s", where, third)
	}
}

func TestR15Call(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.close()
	var calls atomic.Int64
	r := Register(dbresolver.Config{
		Sources:  []gorm.Dialector{postgres.Open(g.primary)}, // the same as gorm.Open's: one pool
		Replicas: []gorm.Dialector{postgres.Open(g.nodes[0])},
	}).SetConnMaxIdleTime(time.Hour).SetConnMaxLifetime(24 * time.Hour).SetMaxIdleConns(3).SetMaxOpenConns(7)
	must(t, r.Call(func(gorm.ConnPool) error { calls.Add(1); return nil }))
	db := openRegistered(t, g.primary, &gorm.Config{}, r)
	if calls.Load() != 2 || len(r.Nodes()) != 2 {
		t.Errorf("%d calls for %d nodes, want 2", calls.Load(), len(r.Nodes()))
	}
	must(t, r.Call(func(pool gorm.ConnPool) error {
		if got := pool.(*sql.DB).Stats().MaxOpenConnections; got != 7 {
			t.Errorf("at most %d connections, want 7", got)
		}
		return nil
	}))
	for _, n := range r.nodes() {
		if n.lifetime > 24*time.Hour || n.lifetime < 21*time.Hour {
			t.Errorf("%s: connections come back to a lifetime of %v after they were made anew", n.name, n.lifetime)
		}
	}
	r.SetMaxOpenConns(4)
	eventually(t, "no more than three idle connections", func() bool {
		for _, n := range r.Nodes() {
			if n.Pool.Max != 4 || n.Pool.Idle > 3 {
				return false
			}
		}
		return true
	})
	must(t, r.AddReplica(deadline(t), Node{Name: "more", DSN: g.nodes[1]}))
	if pool, err := db.DB(); err != nil || pool.Stats().MaxOpenConnections != 4 {
		t.Errorf("db.DB(): %v", err)
	}
	failing := errors.New("no")
	if err := r.Call(func(gorm.ConnPool) error { return failing }); !errors.Is(err, failing) {
		t.Errorf("an error of Call is lost: %v", err)
	}
	other, err := gorm.Open(postgres.Open(g.primary), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	pool, _ := other.DB()
	defer pool.Close()
	r2 := Register(dbresolver.Config{})
	_ = r2.Call(func(gorm.ConnPool) error { return failing })
	if err := other.Use(r2); !errors.Is(err, failing) {
		t.Errorf("an error of an early Call is lost: %v", err)
	}
}

func TestR15Policies(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.close()
	for name, p := range map[string]dbresolver.Policy{
		"random": dbresolver.RandomPolicy{}, "round robin": dbresolver.RoundRobinPolicy(), "strict": dbresolver.StrictRoundRobinPolicy(), "none": nil,
		"func": dbresolver.PolicyFunc(func(pools []gorm.ConnPool) gorm.ConnPool { return pools[len(pools)-1] }),
	} {
		r := Register(dbresolver.Config{Replicas: []gorm.Dialector{postgres.Open(g.nodes[0]), postgres.Open(g.nodes[1])}, Policy: p})
		db := openRegistered(t, g.primary, &gorm.Config{}, r)
		var wg sync.WaitGroup // dbresolver's RoundRobinPolicy alone would race
		for range 4 {
			wg.Go(func() {
				for range 10 {
					if err := db.WithContext(inScope(context.Background(), "r")).First(&item{}).Error; err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		n := r.Nodes()
		one, two := n[1].Decisions["replica"], n[2].Decisions["replica"]
		if name == "func" && (one != 0 || two != 40) || strings.Contains(name, "r") && name != "random" && name != "func" && one != two || one+two != 40 {
			t.Errorf("%s: %d and %d reads", name, one, two)
		}
		must(t, r.Close())
	}
}

func TestR15FaultsAreReportedByUse(t *testing.T) {
	t.Parallel()
	d := postgres.Open("host=h")
	for what, r := range map[string]*Resolver{
		"two without tables": Register(dbresolver.Config{Replicas: []gorm.Dialector{d}}).Register(dbresolver.Config{Replicas: []gorm.Dialector{d}}),
		"no dialector":       Register(dbresolver.Config{Replicas: []gorm.Dialector{nil}}),
		"no table":           Register(dbresolver.Config{Replicas: []gorm.Dialector{d}}, 7),
	} {
		if err := r.Initialize(nil); err == nil {
			t.Errorf("%s: no fault is reported", what)
		}
	}
	cfg, err := FromDBResolver(dbresolver.Config{Sources: []gorm.Dialector{d, d, d}, Replicas: []gorm.Dialector{d}, TraceResolverMode: true}, &user{}, "people")
	if err != nil || !cfg.Trace || len(cfg.Groups) != 1 {
		t.Fatalf("%+v, %v", cfg, err)
	}
	got := cfg.withDefaults().Groups[0]
	if got.Name != "people" || got.Source.Name != "people_source" || len(got.Replicas) != 3 ||
		got.Replicas[0].Name != "people_replica1" || got.Replicas[0].Weight != 1 ||
		got.Replicas[2].Name != "people_source3" || got.Replicas[2].Weight != NoReads {
		t.Errorf("%+v", got)
	}
	must(t, cfg.Validate())
}

// lines keeps what GORM logs.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, args...))
}

func TestR15TraceResolverMode(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.close()
	var log lines
	r := Register(dbresolver.Config{Replicas: []gorm.Dialector{postgres.Open(g.nodes[0])}, TraceResolverMode: true})
	db := openRegistered(t, g.primary, &gorm.Config{Logger: logger.New(&log, logger.Config{LogLevel: logger.Info})}, r)
	fresh := func() *gorm.DB { return db.WithContext(inScope(deadline(t), "request")) }
	last := func(what, want string) {
		t.Helper()
		log.mu.Lock()
		defer log.mu.Unlock()
		if got := log.all[len(log.all)-1]; !strings.Contains(got, want) || !strings.Contains(got, "dbresolver_test.go:") {
			t.Errorf("%s is logged as %q, want %s in it, and the line of the program", what, got, want)
		}
	}
	must(t, fresh().First(&item{}).Error)
	last("a read", "[replica1] SELECT")
	must(t, fresh().Clauses(dbresolver.Write).First(&item{}).Error)
	last("a read with Write", "[primary] SELECT")
	must(t, fresh().Exec("UPDATE items SET n = 2 WHERE id = ?", 1).Error)
	last("a write", "[primary] UPDATE items SET n = 2 WHERE id = 1")
	rows, err := fresh().Model(&item{}).Rows()
	must(t, err)
	last("rows", "[replica1] SELECT")
	must(t, rows.Close())
	must(t, fresh().Transaction(func(tx *gorm.DB) error {
		must(t, tx.First(&item{}).Error)
		last("in a transaction", "[primary] SELECT")
		return nil
	}))
	chain := fresh().Clauses(dbresolver.Read).Model(&item{}).Session(&gorm.Session{})
	must(t, chain.First(&item{}).Error)
	last("a chain", "[replica1] SELECT")
	must(t, chain.Debug().Create(&item{N: 3}).Error)
	last("the write after it", "[primary] INSERT")
}

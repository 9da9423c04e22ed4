package resolver

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/testbed"
)

// GORM never ends the goroutine of its store of prepared statements.
func TestMain(m *testing.M) {
	testbed.Main(m, goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

// item is the table of the tests.
type item struct {
	ID    int64 `gorm:"primaryKey"`
	N     int64
	Parts []part `gorm:"foreignKey:ItemID"`
}

type part struct {
	ID     int64 `gorm:"primaryKey"`
	ItemID int64
}

// patient is a probe that no load of the test machine makes time out.
var patient = Probe{Timeout: 10 * time.Second}

// rig is a database on a cluster with a Resolver in front.
type rig struct {
	t       *testing.T
	c       *testbed.Cluster
	name    string
	db      *gorm.DB
	r       *Resolver
	primary string // DSNs
	nodes   []string
}

// newRig makes the tables, opens GORM with a Resolver for all replicas of c and
// waits until each is in use. change may alter the configuration.
func newRig(t *testing.T, c *testbed.Cluster, change func(*Config)) *rig {
	t.Helper()
	g := &rig{t: t, c: c, name: c.NewDatabase(t)}
	ctx := deadline(t)
	must(t, c.Primary().Exec(ctx, g.name, `CREATE TABLE items (id bigserial PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
		CREATE TABLE parts (id bigserial PRIMARY KEY, item_id bigint REFERENCES items);
		INSERT INTO items (n) VALUES (0); INSERT INTO parts (item_id) VALUES (1)`))
	must(t, c.WaitCaughtUp(ctx))
	cfg := Config{Probe: patient, Pool: Pool{Max: 8, Min: 1}, Logger: quiet()}
	for _, n := range c.Replicas() {
		g.nodes = append(g.nodes, n.DSN(g.name))
	}
	cfg.Replicas = DSNs(g.nodes...)
	g.primary = c.Primary().DSN(g.name)
	if change != nil {
		change(&cfg)
	}
	g.open(cfg)
	return g
}

func (g *rig) open(cfg Config) {
	g.t.Helper()
	g.db, g.r = open(g.t, g.primary, cfg)
	must(g.t, g.r.Ready(deadline(g.t)))
}

// open opens GORM on dsn with a Resolver, both closed when the test ends.
func open(t *testing.T, dsn string, cfg Config) (*gorm.DB, *Resolver) {
	t.Helper()
	r := New(cfg)
	return openWith(t, dsn, r), r
}

func openWith(t *testing.T, dsn string, r *Resolver) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(postgres.Open(dsn), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	t.Cleanup(func() {
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	use(t, db, r)
	return db
}

func use(t *testing.T, db *gorm.DB, r *Resolver) *Resolver {
	t.Helper()
	must(t, db.Use(r))
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// without opens the rig anew with some rules switched off.
func (g *rig) without(off rules) {
	g.t.Helper()
	g.close()
	r := New(g.r.given)
	r.off = off
	db, err := gorm.Open(postgres.Open(g.primary), &gorm.Config{Logger: logger.Discard})
	must(g.t, err)
	g.t.Cleanup(func() {
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	g.db, g.r = db, use(g.t, db, r)
	must(g.t, g.r.Ready(deadline(g.t)))
}

func (g *rig) close() {
	_ = g.r.Close()
	pool, _ := g.db.DB()
	_ = pool.Close()
}

// recovering reports where a read of ctx went, as the server says.
func recovering(t *testing.T, db *gorm.DB) bool {
	t.Helper()
	var yes bool
	must(t, db.Raw("SELECT pg_is_in_recovery()").Scan(&yes).Error)
	return yes
}

// node returns the status of a node.
func (g *rig) node(name string) NodeStatus {
	g.t.Helper()
	for _, n := range g.r.Nodes() {
		if n.Name == name {
			return n
		}
	}
	g.t.Fatalf("no node %q", name)
	return NodeStatus{}
}

// allInUse waits until all replicas are fit for reads.
func (g *rig) allInUse() {
	g.t.Helper()
	eventually(g.t, "all replicas to be fit", func() bool {
		for _, n := range g.r.Nodes() {
			if !n.Primary && (!n.Up || n.Staleness < 0 || n.Staleness > time.Second) {
				return false
			}
		}
		return true
	})
}

func inScope(ctx context.Context, name string) context.Context {
	ctx, _, _ = scope.Begin(ctx, name)
	return ctx
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(90 * time.Second) // beyond the longest ejection
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

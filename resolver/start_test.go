package resolver

import (
	"strings"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/testbed"
)

// A program is started, or started again, while what it connects to is not the
// primary any more.
func TestR11StartAfterAFailover(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, nil)
	g.close()
	ctx := deadline(t)
	old, next := c.Primary(), c.Replica(0)
	must(t, old.StopFast())
	must(t, next.Promote(ctx))
	cfg := Config{Replicas: DSNs(g.nodes...), Probe: patient, Pool: Pool{Max: 4, Min: 1}, Logger: quiet()}
	written := int64(0)
	start := func(what string) {
		t.Helper()
		db, err := gorm.Open(postgres.Open(g.primary), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
		must(t, err)
		g.db, g.r = db, use(t, db, New(cfg))
		defer g.close()
		written++
		// Nobody waits for Ready.
		own := item{N: 100 + written}
		if err := db.WithContext(ctx).Create(&own).Error; err != nil {
			t.Fatalf("%s: the first write fails: %v", what, err)
		}
		if w := g.read(ctx, own.ID); w.N != own.N {
			t.Errorf("%s: read %+v after writing %+v", what, w, own)
		}
		must(t, g.r.Ready(ctx))
		eventually(t, "the promoted one to be the primary", func() bool { return g.node("replica1").Primary })
	}
	start("its server is down")
	must(t, old.RestartAsStandby(ctx, next))
	start("its server is a standby")
	conn, err := next.Conn(ctx, g.name)
	must(t, err)
	defer conn.Close(ctx)
	var there int64
	must(t, conn.QueryRow(ctx, "SELECT count(*) FROM items WHERE n > 100").Scan(&there))
	if there != written {
		t.Errorf("%d of %d writes are on the promoted server", there, written)
	}
}

func TestWhatGormOpenConnectedToHasTheNameThatItIsGiven(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Source = &Node{Name: "db1", Zone: "a"} })
	g.allInUse()
	ctx := deadline(t)
	if n := g.node("db1"); !n.Primary || n.Zone != "a" || n.Weight != 1 || !g.r.primary().given {
		t.Errorf("%+v", n)
	}
	if name := g.r.hub.Primary().Name; name != "db1" {
		t.Errorf("metrics and headers call it %q", name)
	}
	if recovering(t, g.db.WithContext(inScope(ctx, "named")).Clauses(dbresolver.Use("db1"))) {
		t.Error("Use of the name goes elsewhere")
	}
	for want, cfg := range map[string]Config{
		`Source.Name is "a b"`:          {Source: &Node{Name: "a b"}},
		`Replicas[0].Name is "a": must`: {Source: &Node{Name: "a"}, Replicas: []Node{{Name: "a", DSN: lost}}},
		`Source.Weight is 65537`:        {Source: &Node{Weight: maxWeight + 1}},
		`Source is without DSN`:         {Groups: []Group{{Name: "g", Source: &Node{Name: "x"}}}},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

package resolver

import (
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

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

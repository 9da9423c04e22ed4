package resolver

import (
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/testbed"
)

// A standby has all databases of its cluster: one that is connected to another
// of them answers each probe as well as the right one would.
func TestReplicaOfAnotherDatabaseIsNotUsed(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	other := c.NewDatabase(t)
	must(t, c.Primary().Exec(deadline(t), other, "CREATE TABLE items (id bigserial PRIMARY KEY, n bigint); INSERT INTO items (n) VALUES (666)"))
	given, err := gorm.Open(postgres.Open(c.Replica(0).DSN("")), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	must(t, err)
	pool, err := given.DB()
	must(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	g := newRig(t, c, func(cfg *Config) {
		cfg.Replicas = []Node{
			{Name: "good", DSN: cfg.Replicas[0].DSN},
			{Name: "dsn", DSN: c.Replica(0).DSN(other)},
			{Name: "dialector", Dialector: postgres.Open(c.Replica(1).DSN(other))},
			{Name: "pool", Dialector: postgres.New(postgres.Config{Conn: pool})},
		}
		cfg.MaxLag = AnyStaleness
	})
	eventually(t, "the good one", func() bool { return g.node("good").Up && g.node("good").Staleness >= 0 })
	for _, name := range []string{"dsn", "dialector", "pool"} {
		if n := g.node(name); n.Up || n.Misfit != "other database" {
			t.Errorf("%s: %+v", name, n)
		}
	}
	for range 50 {
		var it item
		must(t, g.db.WithContext(inScope(deadline(t), "read")).First(&it).Error)
		if it.N != 0 {
			t.Fatalf("read a row of another database: %+v", it)
		}
	}
	if d := decisions(g.r); d["good"] == 0 || d["dsn"]+d["dialector"]+d["pool"] > 0 {
		t.Errorf("decisions: %v", d)
	}
}

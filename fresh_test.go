package infra_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/resolver"
)

// What is written by another process, while the replica replays nothing, is on
// the primary alone.
func TestReadsThatAReplicaOrACacheMustNotAnswer(t *testing.T) {
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	s := newShop(t, c)
	db, other := s.open(t), s.open(t)
	p := use(t, db, infra.Config{
		Logger: slog.New(slog.DiscardHandler), Name: s.name,
		Resolver: resolver.Config{Replicas: resolver.DSNs(c.Replica(0).DSN(s.name)), MaxLag: time.Hour, Pool: resolver.Pool{Min: 1, Max: 4}},
		Cache:    cachehook.Config{Tables: map[string]cachehook.Rule{"orders": {}, "products": {}}},
	})
	eventually(t, "reads on the replica", func() bool {
		var standby bool
		check(t, db.Raw("SELECT pg_is_in_recovery()").Scan(&standby).Error)
		return standby
	})
	check(t, c.Replica(0).PauseReplay(deadline(t)))
	defer func() { check(t, c.Replica(0).ResumeReplay(deadline(t))) }()

	t.Run("the preload of a cached parent", func(t *testing.T) {
		o := Order{Customer: Customer{Name: "new"}}
		check(t, other.Create(&o).Error)
		for i := range 3 {
			var got Order
			check(t, db.Preload("Customer").First(&got, o.ID).Error)
			if got.Customer.Name != "new" {
				t.Errorf("read %d: the order is there and its customer is not: %+v", i+1, got)
			}
		}
		if hits := p.Cache().Stats().L1Hits; hits == 0 {
			t.Error("the parent did not come from the cache")
		}
	})

	t.Run("FirstOrCreate and FirstOrInit", func(t *testing.T) {
		check(t, other.Create(&Customer{Name: "once"}).Error)
		job := func() *gorm.DB { ctx, _ := p.Begin(context.Background(), "job"); return db.WithContext(ctx) }
		var created, initialised, plain Customer
		check(t, job().Where(Customer{Name: "once"}).FirstOrInit(&initialised).Error)
		if initialised.ID == 0 {
			t.Error("FirstOrInit did not find the row")
		}
		check(t, job().Where(Customer{Name: "once"}).Limit(1).Find(&plain).Error)
		if plain.ID != 0 {
			t.Error("a Find of one row went to the primary, too")
		}
		check(t, job().Where(Customer{Name: "once"}).FirstOrCreate(&created).Error)
		var n int64
		check(t, other.Model(&Customer{}).Where("name = ?", "once").Count(&n).Error)
		if n != 1 {
			t.Errorf("FirstOrCreate left %d rows", n)
		}
	})

	t.Run("bound reads", func(t *testing.T) {
		read := func(ctx context.Context) string {
			var got Product
			check(t, db.WithContext(ctx).First(&got, 1).Error)
			return got.Name
		}
		before := read(context.Background())
		check(t, other.Model(&Product{ID: 1}).Update("name", "changed elsewhere").Error)
		for name, ctx := range map[string]context.Context{
			"Primary":      resolver.Primary(context.Background()),
			"MaxStaleness": resolver.MaxStaleness(context.Background(), time.Millisecond),
			"Critical":     resolver.WithPriority(context.Background(), resolver.Critical),
		} {
			if got := read(ctx); got != "changed elsewhere" {
				t.Errorf("%s: %q", name, got)
			}
		}
		if got := read(context.Background()); got != before {
			t.Errorf("the cache was not asked for others: %q", got)
		}
	})
}

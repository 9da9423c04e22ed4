package limithook

import (
	"context"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/testbed"
)

// A rule's key, or a cost, that panics is the program's fault: it comes to the caller,
// and neither a connection, a transaction nor a mutex stays behind.
func TestL06KeyThatPanicsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	cluster := testbed.SharedCluster(t)
	db, err := gorm.Open(postgres.Open(cluster.Primary().DSN(cluster.NewDatabase(t))), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	pool.SetMaxOpenConns(1) // one that stays behind would be missed
	if err := db.AutoMigrate(&owner{}, &pet{}); err != nil {
		t.Fatal(err)
	}
	type bad struct{}
	broken := func(ctx context.Context) bool { return ctx.Value(bad{}) != nil }
	p := use(t, db, Config{
		PerUser: PerMinute(1000), Global: PerMinute(1000), Count: AllStatements,
		Rules: []Rule{{Name: "table", Rate: PerMinute(1000), KeyOf: func(ctx context.Context, st Statement) string {
			if broken(ctx) && st.Table == "pets" {
				panic("no key")
			}
			return st.Table
		}}},
		Cost: func(ctx context.Context, st Statement) int {
			if broken(ctx) && st.Table == "owners" {
				panic("no cost")
			}
			return 1
		},
	})
	ctx := as("a")
	panics := db.WithContext(context.WithValue(ctx, bad{}, true))
	for what, f := range map[string]func(){
		"find":        func() { panics.Find(&[]pet{}) },
		"cost":        func() { panics.Find(&[]owner{}) },
		"create":      func() { panics.Create(&pet{Name: "x"}) },
		"update":      func() { panics.Model(&owner{}).Where("id > 0").Update("name", "x") },
		"rows":        func() { _, _ = panics.Model(&pet{}).Rows() },
		"association": func() { panics.Create(&owner{Name: "x", Pets: []pet{{Name: "y"}}}) },
		"transaction": func() {
			_ = db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
				if err := tx.Create(&owner{Name: "half"}).Error; err != nil {
					t.Error(err)
				}
				return tx.WithContext(panics.Statement.Context).Create(&pet{Name: "x"}).Error
			})
		},
	} {
		func() {
			defer func() {
				if r := recover(); r != "no key" && r != "no cost" {
					t.Errorf("%s: recovered %v", what, r)
				}
			}()
			f()
		}()
		if n := pool.Stats().InUse; n != 0 {
			t.Fatalf("%s: %d connections stay behind", what, n)
		}
		var owners, pets int64
		err := db.WithContext(ctx).Model(&owner{}).Count(&owners).Error
		if err == nil {
			err = db.WithContext(ctx).Model(&pet{}).Count(&pets).Error
		}
		if err != nil || owners+pets > 0 {
			t.Errorf("%s: %d owners and %d pets are there; %v", what, owners, pets, err)
		}
	}
	if d, err := p.Limiter().Info(ctx, "a"); err != nil || !d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
}

package cachehook

import (
	"context"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func TestRecordTellsWhatTheLookUpCameTo(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE others (id bigint)`)
	db := open(t, dsn, Config{MaxResult: 1000})
	all := func(tx *gorm.DB) error { return tx.Find(&[]product{}).Error }
	one := func(tx *gorm.DB) error { return tx.First(&product{}, 1).Error }
	for _, step := range []struct {
		name string
		do   func(*gorm.DB) error
		want hook.Lookup
	}{
		{"first read", one, hook.Miss},
		{"second read", one, hook.Hit},
		{"no rule", func(tx *gorm.DB) error { return tx.Table("others").Find(&[]product{}).Error }, hook.NotAsked},
		{"volatile", func(tx *gorm.DB) error { return tx.Raw("SELECT random() FROM products").Scan(new(float64)).Error }, hook.NotAsked},
		{"Skip", func(tx *gorm.DB) error { return one(tx.WithContext(Skip(context.Background()))) }, hook.NotAsked},
		{"transaction", func(tx *gorm.DB) error { return tx.Transaction(one) }, hook.NotAsked},
		{"too large", all, hook.Miss},
		{"too large, as is known", all, hook.Bypass},
		{"unknown table", func(tx *gorm.DB) error {
			_ = tx.Clauses(TTL(time.Minute)).Table("nowhere").Find(&[]product{}).Error
			return nil
		}, hook.Bypass},
		{"failing", func(tx *gorm.DB) error {
			_ = tx.Raw("SELECT 1 / (id - id) FROM products").Scan(new(int)).Error
			return nil
		}, hook.Miss},
		{"while a writer commits", func(tx *gorm.DB) error {
			cells := db.cache.hold([]string{db.table(t, "products"), wholeTag(db.table(t, "products"))})
			defer db.cache.release(cells, false)
			return one(tx)
		}, hook.Bypass},
	} {
		before := db.seen.looked(step.want)
		must(t, step.do(db.Session(&gorm.Session{})))
		if got := db.seen.looked(step.want) - before; got != 1 {
			t.Errorf("%s: %d records say %v, want 1: %v", step.name, got, step.want, db.seen.lookups)
		}
	}
}

func TestRecordTellsTheWaitForTheCatalogue(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	read := db.cache.catalog.read
	const long = 50 * time.Millisecond
	db.cache.catalog.read = func(ctx context.Context) (*catalog, error) {
		time.Sleep(long) //nolint:forbidigo // what a slow database takes
		return read(ctx)
	}
	db.price(t, 1)
	if waited, took := db.seen.times(); waited < long || waited > took {
		t.Errorf("waited %v of %v, want at least %v", waited, took, long)
	}
	db.price(t, 1)
	if waited, _ := db.seen.times(); waited != 0 {
		t.Errorf("a hit in memory waited %v", waited)
	}
}

func TestRecordTellsTheWaitForRedis(t *testing.T) {
	t.Parallel()
	server := own(t)
	const budget = 60 * time.Millisecond
	db := open(t, database(t), Config{Redis: clientOf(t, server.Addr()), Timeout: budget, Lease: RevalidateAlways})
	ready(t, db)
	db.price(t, 1)
	must(t, server.Freeze())
	defer func() { must(t, server.Thaw()) }()
	db.price(t, 1)
	if waited, took := db.seen.times(); waited < budget || waited > took {
		t.Errorf("waited %v of %v, want at least the budget of %v", waited, took, budget)
	}
	equal(t, "bypasses", db.seen.looked(hook.Bypass), 1)
}

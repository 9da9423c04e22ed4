package limithook

import (
	"errors"
	"fmt"
	"testing"

	"gorm.io/gorm"
)

// nothingDangles refuses in the middle of what GORM does by itself: afterwards no
// transaction is open, no lock held, no connection kept, and nothing is half done.
func nothingDangles(t *testing.T, b *bench) {
	admin := b.open(t, nil)
	for name, change := range map[string]func(*gorm.Config){
		"default": nil, "prepared": func(c *gorm.Config) { c.PrepareStmt = true },
		"skip default": func(c *gorm.Config) { c.SkipDefaultTransaction = true },
	} {
		const most = 2
		db, p := b.limited(t, Config{PerUser: PerMinute(most)}, change)
		pool, err := db.DB()
		if err != nil {
			t.Fatal(err)
		}
		users := 0
		fresh := func() *gorm.DB { // of a user who may ask once more
			users++
			ctx := as(fmt.Sprint(name, users))
			if err := p.Limiter().AllowN(ctx, most-1); err != nil {
				t.Fatal(err)
			}
			return db.WithContext(ctx)
		}
		for what, f := range map[string]func(db *gorm.DB) error{
			"association": func(db *gorm.DB) error {
				return db.Create(&owner{Name: "half", Pets: []pet{{Name: "p"}, {Name: "q"}}}).Error
			},
			"batches": func(db *gorm.DB) error { return db.CreateInBatches([]owner{{Name: "half"}, {Name: "half 2"}}, 1).Error },
			"preload": func(db *gorm.DB) error { return db.Preload("Pets").Find(&[]owner{}).Error },
			"find in batches": func(db *gorm.DB) error {
				return db.FindInBatches(&[]owner{}, 1, func(tx *gorm.DB, _ int) error { return tx.Find(&[]pet{}).Error }).Error
			},
			"first or create": func(db *gorm.DB) error {
				return db.Where(owner{Name: "half"}).FirstOrCreate(&owner{}).Error
			},
			"nested": func(db *gorm.DB) error {
				return db.Transaction(func(tx *gorm.DB) error {
					if err := tx.Create(&owner{Name: "half"}).Error; err != nil {
						return err
					}
					return tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&owner{Name: "inner"}).Error })
				})
			},
			"a panic afterwards": func(db *gorm.DB) (err error) {
				defer func() {
					if r := recover(); r != "boom" {
						t.Errorf("recovered %v", r)
					}
				}()
				return db.Transaction(func(tx *gorm.DB) error {
					_ = tx.Create(&owner{Name: "half"}).Error
					err = tx.Create(&owner{Name: "inner"}).Error
					panic("boom")
				})
			},
		} {
			if err := admin.Create(&[]owner{{Name: "a"}, {Name: "b"}}).Error; err != nil {
				t.Fatal(err)
			}
			err := f(fresh())
			if !errors.Is(err, ErrLimited) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
			var n int64
			if err := admin.Raw("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'").Scan(&n).Error; err != nil || n != 0 {
				t.Errorf("%s: %s: %d sessions are idle in a transaction, %v", name, what, n, err)
			}
			if in := pool.Stats().InUse; in != 0 {
				t.Errorf("%s: %s: %d connections are in use", name, what, in)
			}
			// Without a transaction around it the first half is the caller's own.
			if err := admin.Model(&owner{}).Where("name LIKE 'half%'").Count(&n).Error; err != nil || n != 0 && name != "skip default" {
				t.Errorf("%s: %s: %d rows are half done, %v", name, what, n, err)
			}
			if err := admin.Exec("DELETE FROM pets; DELETE FROM owners").Error; err != nil {
				t.Fatal(err)
			}
		}

		err = fresh().Connection(func(tx *gorm.DB) error {
			tx = tx.Session(&gorm.Session{}) // GORM's own chain here keeps its first error
			var ok bool
			if err := tx.Raw("SELECT pg_try_advisory_lock(17)").Scan(&ok).Error; err != nil || !ok {
				t.Errorf("%s: lock: %v, %v", name, ok, err)
			}
			wantLimited(t, name+": while it is locked", tx.Find(&[]owner{}).Error)
			wantLimited(t, name+": another lock in disguise", tx.Exec("SELECT pg_advisory_unlock(17), pg_advisory_lock(18)").Error)
			return tx.Raw("SELECT pg_advisory_unlock(17)").Scan(&ok).Error
		})
		var locks int64
		if err != nil || admin.Raw("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").Scan(&locks).Error != nil || locks != 0 {
			t.Errorf("%s: %d locks are held, %v", name, locks, err)
		}
	}
}

// endsTransactions are the ways of ending or marking one by hand.
func endsTransactions(t *testing.T, b *bench) {
	db, p := b.limited(t, Config{PerUser: PerMinute(1), Count: AllStatements}, nil)
	ctx := exhaust(t, p, "a")
	for _, end := range []string{"COMMIT", "commit;", "END", "ABORT", "ROLLBACK", "/* why */ ROLLBACK WORK", "COMMIT AND NO CHAIN"} {
		err := db.WithContext(ctx).Connection(func(tx *gorm.DB) error {
			tx = tx.Session(&gorm.Session{})
			if err := tx.WithContext(Bypass(ctx)).Exec("BEGIN").Error; err != nil {
				return err
			}
			wantLimited(t, end+": in it", tx.Exec("DELETE FROM owners").Error)
			for _, text := range []string{"SAVEPOINT a", "ROLLBACK TO a", "RELEASE a", "SET LOCAL work_mem = '8MB'", end} {
				if err := tx.Exec(text).Error; err != nil {
					return fmt.Errorf("%s: %w", text, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", end, err)
		}
	}
	if st := p.Stats(); st.RefusedUser != 8 {
		t.Errorf("%+v", st)
	}
}

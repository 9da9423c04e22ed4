package cachehook

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// unseen are transactions whose end the plugin does not see.
var unseen = map[string]func(db *gorm.DB, write func(tx *gorm.DB) error, meanwhile func()) error{
	"BEGIN by hand": func(db *gorm.DB, write func(tx *gorm.DB) error, meanwhile func()) error {
		return db.Connection(func(tx *gorm.DB) error {
			if err := tx.Exec("BEGIN").Error; err != nil {
				return err
			}
			if err := write(tx); err != nil {
				return err
			}
			meanwhile()
			return tx.Exec("COMMIT").Error
		})
	},
	"BEGIN by hand, again": func(db *gorm.DB, write func(tx *gorm.DB) error, meanwhile func()) error {
		return db.Connection(func(tx *gorm.DB) error {
			for _, text := range []string{"SELECT 1; BEGIN", "COMMIT AND CHAIN"} {
				if err := tx.Exec(text).Error; err != nil {
					return err
				}
			}
			if err := write(tx); err != nil {
				return err
			}
			meanwhile()
			return tx.Exec("COMMIT").Error
		})
	},
	"Begin on a connection": func(db *gorm.DB, write func(tx *gorm.DB) error, meanwhile func()) error {
		return db.Connection(func(conn *gorm.DB) error {
			tx := conn.Begin()
			if err := write(tx); err != nil {
				return err
			}
			meanwhile()
			return tx.Commit().Error
		})
	},
	"own sql.Tx": func(db *gorm.DB, write func(tx *gorm.DB) error, meanwhile func()) error {
		pool, err := db.DB()
		if err != nil {
			return err
		}
		own, err := pool.BeginTx(context.Background(), &sql.TxOptions{})
		if err != nil {
			return err
		}
		tx := db.Session(&gorm.Session{NewDB: true, Context: context.Background()})
		tx.Statement.ConnPool = own
		if err := write(tx); err != nil {
			return err
		}
		meanwhile()
		return own.Commit()
	},
}

func TestTransactionThatEndsUnseenLeavesNothingStale(t *testing.T) {
	t.Parallel()
	for name, run := range unseen {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, cfg Config) {
				dsn := database(t)
				a := open(t, dsn, cfg)
				readers := []*instance{a}
				if cfg.Redis != nil {
					readers = append(readers, open(t, dsn, cfg))
				}
				ready(t, readers...)
				for _, r := range readers {
					equal(t, "before", r.price(t, 1), 10)
				}
				write := func(tx *gorm.DB) error {
					return tx.Exec("UPDATE products SET price = 77 WHERE id = 1").Error
				}
				must(t, run(a.DB, write, func() {
					for _, r := range readers {
						for range 2 {
							equal(t, "before COMMIT", r.price(t, 1), 10)
						}
					}
				}))
				equal(t, "after COMMIT", a.price(t, 1), 77)
				equal(t, "hits while the outcome was open", a.seen.count(hook.L1)+a.seen.count(hook.L2), 0)
				equal(t, "tags are in doubt", a.cache.Stats().InDoubt > 0, true)
				for _, r := range readers[1:] { // at most a lease later
					eventually(t, "the other instance reads what was committed", 3*time.Second, func() bool { return r.price(t, 1) == 77 })
				}
			})
		})
	}
}

func TestDoubtIsRenewedByFurtherWritesAndEnds(t *testing.T) {
	t.Parallel()
	eachMode(t, doubtIsRenewed)
}

func doubtIsRenewed(t *testing.T, cfg Config) {
	db := open(t, database(t), cfg)
	ready(t, db)
	const long = 400 * time.Millisecond
	db.cache.markTTL = long
	if r, ok := db.cache.store.(*redisStore); ok {
		r.markTTL = long
	}
	write := func(tx *gorm.DB) { must(t, tx.Exec("UPDATE products SET price = price + 1 WHERE id = 1").Error) }
	var last time.Time
	must(t, db.Connection(func(tx *gorm.DB) error {
		began := time.Now()
		for time.Since(began) < 2*long {
			last = time.Now()
			write(tx)
			time.Sleep(long / 20) //nolint:forbidigo // the program's own pace
			hits := db.seen.count(hook.L1)
			db.price(t, 1)
			db.price(t, 1)
			if time.Since(last) < long { // else the machine has stood still
				equal(t, "hits while it was renewed", db.seen.count(hook.L1), hits)
			}
		}
		return nil
	}))
	hits := db.seen.count(hook.L1)
	eventually(t, "hits again", 30*time.Second, func() bool {
		db.price(t, 1)
		return db.seen.count(hook.L1) > hits
	})
	if took := time.Since(last); took < long {
		t.Errorf("the doubt ended %v after the last write, want at least %v", took, long)
	}
	equal(t, "tags in doubt", db.cache.Stats().InDoubt, 0)
	pin := db.cache.mirror.cell(db.table(t, "products"), true)
	equal(t, "holds left", pin.busy.Load(), 0)
}

// The transaction is open for much longer than its tags are held without news.
func TestLongTransactionThatEndsUnseenLeavesNothingStale(t *testing.T) {
	t.Parallel()
	for name, run := range unseen {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, cfg Config) {
				db := open(t, database(t), cfg)
				ready(t, db)
				const hold = 200 * time.Millisecond
				db.cache.markTTL = hold
				if r, ok := db.cache.store.(*redisStore); ok {
					r.markTTL = hold
				}
				write := func(tx *gorm.DB) error {
					return tx.Exec("UPDATE products SET price = 77 WHERE id = 1").Error
				}
				must(t, run(db.DB, write, func() {
					for end := time.Now().Add(4 * hold); time.Now().Before(end); time.Sleep(hold / 20) { //nolint:forbidigo // the program's own pace
						equal(t, "before COMMIT", db.price(t, 1), 10)
					}
				}))
				equal(t, "after COMMIT", db.price(t, 1), 77)
				eventually(t, "the doubt ends", 5*time.Second, func() bool { return db.cache.Stats().InDoubt == 0 })
				eventually(t, "hits", 60*time.Second, func() bool {
					equal(t, "later", db.price(t, 1), 77)
					return db.seen.count(hook.L1) > 0
				})
			})
		})
	}
}

package hook_test

import (
	"context"
	"errors"
	"time"

	"gorm.io/gorm"
)

var errInner = errors.New("inner")

func init() {
	names := func(e *env) {
		var names []string
		rows, err := e.raw.QueryContext(e.t.Context(), "SELECT name FROM companies ORDER BY id")
		e.must(err)
		defer rows.Close()
		for rows.Next() {
			var n string
			e.must(rows.Scan(&n))
			names = append(names, n)
		}
		e.must(rows.Err())
		e.note("on the server: %v", names)
	}
	nested := func(e *env) {
		err := e.db.Transaction(func(tx *gorm.DB) error {
			e.did("outer", tx.Create(&Company{Name: "outer"}))
			e.got("inner", tx.Transaction(func(tx *gorm.DB) error {
				e.did("inner", tx.Create(&Company{Name: "inner"}))
				return errInner
			}))
			e.got("second", tx.Transaction(func(tx *gorm.DB) error {
				return tx.Create(&Company{Name: "second"}).Error
			}))
			return nil
		})
		e.got("transaction", err)
		names(e)
	}
	behaviours["G03"] = []scenario{
		{name: "nested-transaction-rolls-back-alone", run: nested},
		{name: "nested-with-prepared-statements", config: func(c *gorm.Config) { c.PrepareStmt = true }, run: nested},
		{name: "nested-without-savepoints", config: func(c *gorm.Config) { c.DisableNestedTransaction = true }, run: nested},
		{name: "SavePoint-and-RollbackTo", run: func(e *env) {
			tx := e.db.Begin()
			e.did("a", tx.Create(&Company{Name: "a"}))
			e.did("savepoint", tx.SavePoint("one"))
			e.did("b", tx.Create(&Company{Name: "b"}))
			e.did("roll back to", tx.RollbackTo("one"))
			e.did("c", tx.Create(&Company{Name: "c"}))
			e.did("commit", tx.Commit())
			names(e)
			e.events("transaction begin", "transaction before commit", "transaction committed")
		}},
		{name: "RollbackTo-mends-a-failed-transaction", run: func(e *env) {
			tx := e.db.Begin()
			e.did("savepoint", tx.SavePoint("one"))
			e.did("fail", tx.Session(&gorm.Session{}).Exec("SELECT no_such_column"))
			e.did("roll back to", tx.RollbackTo("one"))
			e.did("a", tx.Create(&Company{Name: "a"}))
			e.did("commit", tx.Commit())
			names(e)
		}},
		{name: "RollbackTo-of-an-unknown-savepoint", run: func(e *env) {
			tx := e.db.Begin()
			e.did("roll back to", tx.RollbackTo("never_made"))
			e.did("roll back", tx.Rollback())
		}},
		{name: "three-levels-deep", run: func(e *env) {
			err := e.db.Transaction(func(tx *gorm.DB) error {
				return tx.Transaction(func(tx *gorm.DB) error {
					e.did("two", tx.Create(&Company{Name: "two"}))
					e.got("three", tx.Transaction(func(tx *gorm.DB) error {
						e.did("three", tx.Create(&Company{Name: "three"}))
						return errInner
					}))
					return nil
				})
			})
			e.got("all", err)
			names(e)
		}},
		{name: "panic-in-Transaction-rolls-back", run: func(e *env) {
			func() {
				defer func() { e.note("recovered %v", recover()) }()
				_ = e.db.Transaction(func(tx *gorm.DB) error {
					e.did("a", tx.Create(&Company{Name: "a"}))
					panic("oh")
				})
			}()
			names(e)
			e.events("transaction begin", "transaction rolled_back")
			e.did("usable", e.db.Create(&Company{Name: "after"}))
		}},
		{name: "panic-in-a-nested-Transaction", run: func(e *env) {
			e.must(e.db.Transaction(func(tx *gorm.DB) error {
				e.did("a", tx.Create(&Company{Name: "a"}))
				func() {
					defer func() { e.note("recovered %v", recover()) }()
					_ = tx.Transaction(func(tx *gorm.DB) error {
						e.did("b", tx.Create(&Company{Name: "b"}))
						panic("oh")
					})
				}()
				return nil
			}))
			names(e)
		}},
		{name: "panic-in-a-hook-of-a-read", run: func(e *env) {
			e.seed()
			ctx := onHook(e.t.Context(), func(string, *Witness, *gorm.DB) error { panic("in AfterFind") })
			func() {
				defer func() { e.note("recovered %v", recover()) }()
				e.db.WithContext(ctx).First(&Witness{})
			}()
			e.did("usable", e.db.First(&Witness{}))
		}},
		{name: "context-cancelled-inside-a-transaction", run: func(e *env) {
			ctx, cancel := context.WithCancel(e.t.Context())
			defer cancel()
			tx := e.db.WithContext(ctx).Begin()
			e.did("a", tx.Create(&Company{Name: "a"}))
			cancel()
			e.got("create", tx.Create(&Company{Name: "b"}).Error)
			tx.Error = nil
			err := tx.Commit().Error
			e.is("commit says that it failed", err != nil)
			names(e)
			if e.hooked() {
				e.eventually("told of the roll-back", func() bool {
					_, events := e.part.seen()
					return len(events) == 2 && events[1] == "transaction rolled_back"
				})
			}
		}},
		{name: "context-cancelled-in-Transaction-without-a-call-after-it", run: func(e *env) {
			ctx, cancel := context.WithCancel(e.t.Context())
			tx := e.db.WithContext(ctx).Begin()
			e.did("a", tx.Create(&Company{Name: "a"}))
			cancel() // and nothing more: database/sql rolls back by itself
			e.eventually("no transaction is left open", func() bool {
				return e.count("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in tr%' AND query LIKE '%companies%' AND datname = current_database()") == 0
			})
			if e.hooked() {
				e.eventually("told of the roll-back", func() bool {
					_, events := e.part.seen()
					return len(events) == 2 && events[1] == "transaction rolled_back"
				})
			}
			names(e)
		}},
		{name: "Begin-with-an-ended-context", run: func(e *env) {
			ctx, cancel := context.WithCancel(e.t.Context())
			cancel()
			tx := e.db.WithContext(ctx).Begin()
			e.got("begin", tx.Error)
			e.got("create", tx.Create(&Company{Name: "a"}).Error)
			e.note("roll back: %v", tx.Rollback().Error)
			e.note("transaction: %v", e.db.WithContext(ctx).Transaction(func(*gorm.DB) error { return nil }))
			e.got("create", e.db.WithContext(ctx).Create(&Company{Name: "a"}).Error)
			e.events()
		}},
		{name: "Begin-with-an-ended-context-prepared", config: func(c *gorm.Config) { c.PrepareStmt = true }, run: func(e *env) {
			ctx, cancel := context.WithCancel(e.t.Context())
			cancel()
			tx := e.db.WithContext(ctx).Begin()
			e.got("begin", tx.Error)
			e.note("roll back: %v", tx.Rollback().Error)
			e.note("transaction: %v", e.db.WithContext(ctx).Transaction(func(*gorm.DB) error { return nil }))
			e.got("create", e.db.WithContext(ctx).Create(&Company{Name: "a"}).Error)
			e.events()
		}},
		{name: "deadline-during-a-statement", run: func(e *env) {
			ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Millisecond)
			defer cancel()
			e.muted(func() {
				e.is("deadline", errors.Is(e.db.WithContext(ctx).Exec("SELECT pg_sleep(10)").Error, context.DeadlineExceeded))
			})
			e.did("usable", e.db.Create(&Company{Name: "after"}))
			names(e)
		}},
		{name: "DefaultTransactionTimeout", config: func(c *gorm.Config) { c.DefaultTransactionTimeout = time.Minute }, run: nested},
	}
}

// eventually waits for what happens on another goroutine or on the server.
func (e *env) eventually(what string, ok func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	e.t.Errorf("not within 5 s: %s", what)
}

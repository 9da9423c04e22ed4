package hook_test

import (
	"context"
	"errors"

	"gorm.io/gorm"
)

func init() {
	behaviours["G06"] = []scenario{
		{name: "connection-stays-pinned-after-a-create", run: func(e *env) {
			// Bare GORM loses the connection with the first default transaction.
			if e.variant == "bare" {
				e.leave()
				return
			}
			e.seed()
			e.got("connection", e.db.Connection(func(tx *gorm.DB) error {
				first := backend(e, tx)
				e.did("temporary table", tx.Exec("CREATE TEMP TABLE scratch (n int)"))
				e.did("create", tx.Create(&Company{Name: "x"}))
				e.is("same connection after a create", backend(e, tx) == first)
				e.did("update", tx.Model(&Company{}).Where("name = ?", "x").Update("name", "y"))
				e.did("delete", tx.Where("name = ?", "y").Delete(&Company{}))
				e.is("same connection after a delete", backend(e, tx) == first)
				e.did("into it", tx.Exec("INSERT INTO scratch VALUES (1)"))
				var n int
				e.did("from it", tx.Raw("SELECT n FROM scratch").Scan(&n), n)
				return nil
			}))
			e.events("autocommit before commit", "autocommit committed",
				"transaction begin", "transaction before commit", "transaction committed",
				"transaction begin", "transaction before commit", "transaction committed",
				"transaction begin", "transaction before commit", "transaction committed",
				"autocommit before commit", "autocommit committed")
		}},
		{name: "connection-without-default-transactions", config: func(c *gorm.Config) { c.SkipDefaultTransaction = true }, run: func(e *env) {
			e.seed()
			e.got("connection", e.db.Connection(func(tx *gorm.DB) error {
				first := backend(e, tx)
				e.did("create", tx.Create(&Company{Name: "x"}))
				e.did("set", tx.Exec("SET application_name = 'pinned'"))
				var name string
				e.did("show", tx.Raw("SELECT current_setting('application_name')").Scan(&name), name)
				e.is("same connection", backend(e, tx) == first)
				return nil
			}))
		}},
		{name: "explicit-transaction-on-a-connection", run: func(e *env) {
			e.seed()
			e.got("connection", e.db.Connection(func(conn *gorm.DB) error {
				first := backend(e, conn)
				err := conn.Transaction(func(tx *gorm.DB) error {
					e.is("same connection", backend(e, tx) == first)
					e.did("create", tx.Create(&Company{Name: "x"}))
					return nil
				})
				e.got("transaction", err)
				e.got("failing", conn.Transaction(func(tx *gorm.DB) error {
					e.did("create", tx.Create(&Company{Name: "y"}))
					return errInner
				}))
				return nil
			}))
			e.note("companies: %d", e.count("SELECT count(*) FROM companies"))
			if e.hooked() {
				for _, r := range e.records() {
					e.is("neither served nor routed", r.Node == nil || r.Node == e.hub.Primary())
				}
				_, events := e.part.seen()
				e.is("writes are told as foreign", len(events) == 4 && events[1] == "foreign committed")
			}
		}},
		{name: "failing-create-on-a-connection", run: func(e *env) {
			if e.variant == "bare" {
				e.leave()
				return
			}
			e.seed()
			e.got("connection", e.db.Connection(func(tx *gorm.DB) error {
				tx = tx.Session(&gorm.Session{})
				first := backend(e, tx)
				e.did("create", tx.Create(&Account{Number: "a-1"}))
				e.is("same connection after a failure", backend(e, tx) == first)
				ctx, cancel := context.WithCancel(e.t.Context())
				cancel()
				e.is("ended context", errors.Is(tx.WithContext(ctx).Create(&Company{Name: "x"}).Error, context.Canceled))
				return nil
			}))
		}},
		{name: "connection-with-associations-and-prepared-statements", config: func(c *gorm.Config) { c.PrepareStmt = true }, run: func(e *env) {
			e.got("connection", e.db.Connection(func(tx *gorm.DB) error {
				e.did("create", tx.Create(&User{Name: "u", Pets: []Pet{{Name: "p"}}, Company: &Company{Name: "c"}}))
				return nil
			}))
			e.note("users with pets: %d", e.count("SELECT count(*) FROM users JOIN pets ON user_id = users.id"))
		}},
	}
}

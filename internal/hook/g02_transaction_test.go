package hook_test

import (
	"database/sql"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func init() {
	behaviours["G02"] = []scenario{
		{name: "explicit-transaction-stays-on-one-connection", run: func(e *env) {
			e.seed()
			e.must(e.db.Transaction(func(tx *gorm.DB) error {
				first := backend(e, tx)
				e.is("open on the server", e.state(first) == "idle in transaction")
				e.did("create", tx.Create(&Company{Name: "new"}))
				e.is("same connection after a create", backend(e, tx) == first)
				var c []Company
				e.did("own write is seen", tx.Order("id").Find(&c), c)
				e.is("same connection after a read", backend(e, tx) == first)
				e.did("raw", tx.Exec("UPDATE companies SET name = 'newer' WHERE name = ?", "new"))
				var users []User
				e.did("preload", tx.Preload("Pets").Preload("Company").Order("id").Find(&users), users)
				e.is("same connection after preloads", backend(e, tx) == first)
				e.is("nothing is visible outside", e.count("SELECT count(*) FROM companies WHERE name LIKE 'new%'") == 0)
				return nil
			}))
			e.is("committed", e.count("SELECT count(*) FROM companies WHERE name = 'newer'") == 1)
			e.events("transaction begin", "transaction before commit", "transaction committed")
		}},
		{name: "begin-and-commit-by-hand", run: func(e *env) {
			tx := e.db.Begin()
			e.did("create", tx.Create(&Company{Name: "a"}))
			e.did("commit", tx.Commit())
			e.did("commit again", tx.Commit())
			e.did("roll back after it", tx.Rollback())
			e.is("there", e.count("SELECT count(*) FROM companies") == 1)
			e.events("transaction begin", "transaction before commit", "transaction committed")
		}},
		{name: "rollback-by-hand", run: func(e *env) {
			tx := e.db.Begin()
			e.did("create", tx.Create(&Company{Name: "a"}))
			e.did("roll back", tx.Rollback())
			e.did("create after it", tx.Create(&Company{Name: "b"}))
			e.is("not there", e.count("SELECT count(*) FROM companies") == 0)
			e.events("transaction begin", "transaction rolled_back")
		}},
		{name: "error-rolls-back", run: func(e *env) {
			failed := errors.New("failed")
			err := e.db.Transaction(func(tx *gorm.DB) error {
				e.did("create", tx.Create(&Company{Name: "a"}))
				return failed
			})
			e.got("transaction", err)
			e.is("the caller's own error", errors.Is(err, failed))
			e.is("not there", e.count("SELECT count(*) FROM companies") == 0)
			e.events("transaction begin", "transaction rolled_back")
		}},
		{name: "default-transaction-begins-and-commits", run: func(e *env) {
			var inside, xid string
			ctx := onHook(e.t.Context(), func(name string, _ *Witness, tx *gorm.DB) error {
				if name == "AfterCreate" {
					inside = e.state(backend(e, tx))
					return tx.Raw("SELECT pg_current_xact_id()::text").Scan(&xid).Error
				}
				return nil
			})
			e.did("create", e.db.WithContext(ctx).Create(&Witness{Name: "w"}))
			e.note("in the hook: %s", inside)
			e.is("a transaction was open", inside == "idle in transaction")
			e.is("its row is of that transaction", e.count("SELECT count(*) FROM witnesses WHERE xmin::text = $1", xid) == 1)
			e.is("no transaction is left", e.idleInTransaction() == 0)
			e.events("transaction begin", "transaction before commit", "transaction committed")
		}},
		{name: "default-transaction-holds-the-associations", run: func(e *env) {
			u := User{Name: "u", Company: &Company{Name: "c"}, Pets: []Pet{{Name: "p", Toys: []Toy{{Name: "t"}}}}, Languages: []Language{{Code: "xx"}}}
			e.did("create", e.db.Create(&u), u)
			e.is("one transaction wrote all", e.count(`SELECT count(DISTINCT x) FROM (SELECT xmin::text x FROM users UNION ALL SELECT xmin::text FROM companies
				UNION ALL SELECT xmin::text FROM pets UNION ALL SELECT xmin::text FROM toys UNION ALL SELECT xmin::text FROM user_languages) a`) == 1)
			e.events("transaction begin", "transaction before commit", "transaction committed")
		}},
		{name: "error-in-a-hook-rolls-back-the-default-transaction", run: func(e *env) {
			ctx := onHook(e.t.Context(), func(name string, _ *Witness, _ *gorm.DB) error {
				if name == "AfterCreate" {
					return errors.New("refused by the hook")
				}
				return nil
			})
			e.did("create", e.db.WithContext(ctx).Create(&Witness{Name: "w"}))
			e.is("not there", e.count("SELECT count(*) FROM witnesses") == 0)
			e.is("no transaction is left", e.idleInTransaction() == 0)
			e.events("transaction begin", "transaction rolled_back")
		}},
		{name: "delete-and-update-have-default-transactions", run: func(e *env) {
			e.seed()
			e.did("update", e.db.Model(&User{ID: 1}).Update("age", 31))
			e.did("delete", e.db.Delete(&User{}, 3))
			e.events("transaction begin", "transaction before commit", "transaction committed",
				"transaction begin", "transaction before commit", "transaction committed")
		}},
		{name: "failed-transaction-is-no-commit", run: func(e *env) {
			tx := e.db.Begin()
			e.did("create", tx.Create(&Company{Name: "a"}))
			e.did("fail", tx.Exec("SELECT * FROM no_such_table"))
			tx.Error = nil
			e.did("commit", tx.Commit())
			e.is("not there", e.count("SELECT count(*) FROM companies") == 0)
			e.events("transaction begin", "transaction before commit", "transaction rolled_back")
		}},
		{name: "read-only-transaction-runs-on-a-replica", run: func(e *env) {
			e.seed()
			readOnly := &sql.TxOptions{ReadOnly: true}
			e.beginsOnReplica(func() *gorm.DB { return e.db.Begin(readOnly) })
			e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
				var users []User
				e.did("find", tx.Order("id").Find(&users), users)
				return tx.Create(&Company{Name: "x"}).Error
			}, readOnly))
		}},
		{name: "isolation-level-reaches-the-server", run: func(e *env) {
			e.must(e.db.Transaction(func(tx *gorm.DB) error {
				var level string
				e.did("level", tx.Raw("SHOW transaction_isolation").Scan(&level), level)
				return nil
			}, &sql.TxOptions{Isolation: sql.LevelSerializable}))
		}},
		{name: "reads-of-a-transaction-are-neither-served-nor-routed", run: func(e *env) {
			e.seed()
			e.must(e.db.Transaction(func(tx *gorm.DB) error {
				for range 3 {
					e.did("find", tx.Find(&[]User{}))
				}
				return nil
			}))
			if e.hooked() {
				records, _ := e.part.seen()
				e.is("served nothing", e.part.served == 0)
				for _, r := range records {
					e.is("in a transaction on the primary", r.Where == hook.InTxn && r.Node == e.hub.Primary() && r.Txn != nil)
				}
			}
		}},
	}
}

// backend is the server process behind tx.
func backend(e *env, tx *gorm.DB) int {
	var pid int
	e.muted(func() { e.must(tx.Session(&gorm.Session{NewDB: true}).Raw("SELECT pg_backend_pid()").Scan(&pid).Error) })
	return pid
}

// state is what the server says of a process.
func (e *env) state(pid int) string {
	e.t.Helper()
	var state string
	if err := e.raw.QueryRowContext(e.t.Context(), "SELECT state FROM pg_stat_activity WHERE pid = $1", pid).Scan(&state); err != nil {
		e.t.Fatal(err)
	}
	return state
}

// idleInTransaction is the number of this environment's open transactions.
func (e *env) idleInTransaction() int {
	e.t.Helper()
	return e.count("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND query LIKE '%witnesses%' AND datname = current_database()")
}

// muted runs f without its notes.
func (e *env) muted(f func()) {
	e.mu.Lock()
	n := len(e.lines)
	e.mu.Unlock()
	f()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = e.lines[:n]
}

// beginsOnReplica checks where a transaction begins: on a replica, as soon as
// one is known to be fresh, and without a router on the primary.
func (e *env) beginsOnReplica(begin func() *gorm.DB) {
	e.t.Helper()
	e.muted(func() {
		e.eventually("begins on a replica where there is a router", func() (replica bool) {
			tx := begin()
			e.must(tx.Raw("SELECT pg_is_in_recovery()").Scan(&replica).Error)
			e.must(tx.Rollback().Error)
			return replica == (e.variant != "bare")
		})
	})
}

// events checks what the parts were told of transactions.
func (e *env) events(want ...string) {
	e.t.Helper()
	if !e.hooked() {
		return
	}
	if _, events := e.part.seen(); fmt.Sprint(events) != fmt.Sprint(want) {
		e.t.Errorf("events\n%v, want\n%v", events, want)
	}
}

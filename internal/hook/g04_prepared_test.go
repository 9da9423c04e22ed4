package hook_test

import (
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func init() {
	prepare := func(c *gorm.Config) { c.PrepareStmt = true }
	skip := func(c *gorm.Config) { c.SkipDefaultTransaction = true }
	both := func(c *gorm.Config) { c.PrepareStmt, c.SkipDefaultTransaction = true, true }

	// work is what an ordinary program does, in and out of transactions.
	work := func(e *env, db *gorm.DB) {
		for range 3 { // prepared once, used again, on each replica
			var users []User
			e.did("find", db.Preload("Pets").Order("id").Find(&users, "age > ?", 20), users)
		}
		e.did("create", db.Create(&Company{Name: "n"}))
		e.did("update", db.Model(&Company{}).Where("name = ?", "n").Update("name", "m"))
		e.must(db.Transaction(func(tx *gorm.DB) error {
			for range 2 {
				e.did("create", tx.Create(&Company{Name: "t"}))
				var c []Company
				e.did("find", tx.Order("id").Find(&c), c)
			}
			e.got("nested", tx.Transaction(func(tx *gorm.DB) error {
				e.did("nested create", tx.Create(&Company{Name: "gone"}))
				return errInner
			}))
			return nil
		}))
		var n int64
		e.did("count", db.Model(&Company{}).Count(&n), n)
		e.did("raw", db.Raw("SELECT count(*) FROM companies WHERE name = ?", "t").Scan(&n), n)
		e.did("exec", db.Exec("DELETE FROM companies WHERE name = ?", "t"))
		e.did("delete", db.Where("name = ?", "m").Delete(&Company{}))
		e.note("left: %d", e.count("SELECT count(*) FROM companies"))
	}
	global := func(e *env) { e.seed(); work(e, e.db) }
	session := func(s gorm.Session) func(e *env) {
		return func(e *env) { e.seed(); work(e, e.db.Session(&s)) }
	}
	behaviours["G04"] = []scenario{
		{name: "plain", run: global},
		{name: "PrepareStmt-global", config: prepare, run: global},
		{name: "PrepareStmt-session", run: session(gorm.Session{PrepareStmt: true})},
		{name: "PrepareStmt-global-and-session", config: prepare, run: session(gorm.Session{PrepareStmt: true})},
		{name: "SkipDefaultTransaction-global", config: skip, run: global},
		{name: "SkipDefaultTransaction-session", run: session(gorm.Session{SkipDefaultTransaction: true})},
		{name: "both-global", config: both, run: global},
		{name: "both-session", run: session(gorm.Session{PrepareStmt: true, SkipDefaultTransaction: true})},
		{name: "both-crosswise", config: prepare, run: session(gorm.Session{SkipDefaultTransaction: true})},
		{name: "bounded-store", config: func(c *gorm.Config) { c.PrepareStmt, c.PrepareStmtMaxSize = true, 2 }, run: global},
		{name: "simple-protocol", dialect: simpleProtocol, run: global},
		{name: "without-returning", dialect: withoutReturning, run: func(e *env) {
			e.seed()
			e.did("find", e.db.Find(&[]User{}))
			e.did("update", e.db.Model(&Company{ID: 1}).Update("name", "m"))
		}},
		{name: "PrepareStmt-session-inside-a-transaction", run: func(e *env) {
			e.seed()
			e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
				pid := backend(e, tx)
				p := tx.Session(&gorm.Session{PrepareStmt: true})
				e.is("on the transaction's connection", backend(e, p) == pid)
				e.did("create", p.Create(&Company{Name: "in"}))
				var c []Company
				e.did("find", p.Find(&c, "name = ?", "in"), c)
				return errInner
			}))
			e.is("rolled back with it", e.count("SELECT count(*) FROM companies WHERE name = 'in'") == 0)
		}},
		{name: "default-transaction-is-skipped", config: skip, run: func(e *env) {
			ctx := onHook(e.t.Context(), func(name string, _ *Witness, _ *gorm.DB) error {
				if name == "AfterCreate" {
					e.is("visible outside before the hook", e.count("SELECT count(*) FROM witnesses") == 1)
				}
				return nil
			})
			e.did("create", e.db.WithContext(ctx).Create(&Witness{Name: "w"}))
			e.events("autocommit before commit", "autocommit committed")
		}},
		{name: "failed-autocommit-is-told-as-rolled-back", config: func(c *gorm.Config) { c.SkipDefaultTransaction, c.TranslateError = true, true }, run: func(e *env) {
			e.did("create", e.db.Create(&Account{Number: "1"}))
			e.did("create twice", e.db.Create(&Account{Number: "1"}))
			e.events("autocommit before commit", "autocommit committed", "autocommit before commit", "autocommit rolled_back")
		}},
		{name: "one-store-for-each-node", config: prepare, run: func(e *env) {
			e.seed()
			for range 4 {
				e.did("find", e.db.Find(&[]Company{}))
			}
			e.did("create", e.db.Create(&Company{Name: "x"}))
			if e.hooked() {
				e.is("both replicas served", e.part.nodes["replica1"] == 2 && e.part.nodes["replica2"] == 2)
			}
		}},
		{name: "session-made-before-Use", run: func(e *env) {
			e.did("create", e.db.Session(&gorm.Session{PrepareStmt: true}).Create(&Company{Name: "x"}))
		}},
		{name: "prepared-syntax-error", config: prepare, run: func(e *env) {
			e.did("find", e.db.Where("no_such = 1").Find(&[]User{}))
			e.did("exec", e.db.Exec("UPDAT x"))
			e.did("create", e.db.Create(&Company{Name: "usable"}))
		}},
		{name: "prepared-syntax-error-for-one-row", config: prepare, run: func(e *env) {
			// Bare GORM panics in Scan: its store returns an empty *sql.Row.
			if e.variant == "bare" {
				e.leave()
				return
			}
			var n int
			e.got("scan", e.db.Raw("SELECT no_such FROM users").Row().Scan(&n))
			e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
				err := tx.Raw("SELECT no_such FROM users").Row().Scan(&n)
				e.got("scan in a transaction", err)
				return err
			}))
		}},
		{name: "prepared-reads-follow-DDL", ownTables: true, config: prepare, run: func(e *env) {
			e.seed()
			for range 4 {
				e.did("before", e.db.Raw("SELECT * FROM companies ORDER BY id").Scan(&[]map[string]any{}))
			}
			e.did("ddl", e.db.Exec("ALTER TABLE companies ADD COLUMN city text"))
			if e.variant == "bare" {
				e.leave()
				return
			}
			for range 4 {
				var rows []map[string]any
				e.did("after", e.db.Raw("SELECT * FROM companies ORDER BY id").Scan(&rows), rows)
			}
		}},
		{name: "prepared-reads-follow-DDL-of-somebody-else", ownTables: true, config: prepare, run: func(e *env) {
			// Bare GORM fails with 0A000 until the process ends.
			if e.variant == "bare" {
				e.leave()
				return
			}
			e.seed()
			for i := range 3 {
				for range 4 {
					e.did("before", e.db.Raw("SELECT * FROM companies ORDER BY id").Scan(&[]map[string]any{}))
				}
				e.exec("ALTER TABLE companies ADD COLUMN c" + string(rune('a'+i)) + " text")
				for range 4 {
					var rows []map[string]any
					e.did("after", e.db.Raw("SELECT * FROM companies ORDER BY id").Scan(&rows), rows)
					row := e.db.Raw("SELECT * FROM companies WHERE id = 1").Row()
					e.got("one row", row.Err())
					dest := make([]any, 3+i)
					for i := range dest {
						dest[i] = new(any)
					}
					e.got("scanned", row.Scan(dest...), dest...)
				}
			}
			if records := e.records(); e.hooked() {
				retries := 0
				for _, r := range records {
					retries += int(r.Retries)
				}
				e.is("stale plans were met", retries > 0)
			}
		}},
		{name: "DDL-inside-a-transaction-with-reads-around-it", ownTables: true, config: prepare, run: func(e *env) {
			// Bare GORM fails with 0A000, which ends the transaction.
			if e.variant == "bare" {
				e.leave()
				return
			}
			e.seed()
			e.must(e.db.Transaction(func(tx *gorm.DB) error {
				for _, column := range []string{"x", "y"} {
					e.did("before", tx.Raw("SELECT * FROM companies").Scan(&[]map[string]any{}))
					e.did("ddl", tx.Exec("ALTER TABLE companies ADD COLUMN "+column+" text"))
					var rows []map[string]any
					e.did("after", tx.Raw("SELECT * FROM companies ORDER BY id").Scan(&rows), rows)
					e.did("after, the same text", tx.Raw("SELECT * FROM companies").Scan(&rows), rows)
				}
				return nil
			}))
		}},
	}
}

func (e *env) records() []*hook.Record {
	if !e.hooked() {
		return nil
	}
	records, _ := e.part.seen()
	return records
}

func simpleProtocol(c *postgres.Config)   { c.PreferSimpleProtocol = true }
func withoutReturning(c *postgres.Config) { c.WithoutReturning = true }

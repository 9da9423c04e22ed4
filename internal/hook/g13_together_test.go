package hook_test

import (
	"errors"
	"strings"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/hook"
)

func init() {
	work := func(e *env) {
		e.seed()
		var us []User
		e.did("find", e.db.Preload("Pets").Order("id").Find(&us), us)
		e.did("create", e.db.Create(&User{Name: "n", Pets: []Pet{{Name: "p"}}}))
		e.did("update", e.db.Model(&User{ID: 1}).Update("age", 1))
		e.did("delete", e.db.Delete(&User{ID: 2}))
		var n int
		e.did("scan", e.db.Raw("SELECT count(*) FROM users").Scan(&n), n)
		e.got("row", e.db.Raw("SELECT age FROM users WHERE id = 1").Row().Scan(&n), n)
		e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
			e.did("create", tx.Create(&User{Name: "gone"}))
			return errInner
		}))
		e.did("refused", e.db.Create(&Account{Number: "a-1"}))
		e.note("users %d", e.count("SELECT count(*) FROM users"))
		if e.hooked() {
			e.is("each statement was observed once", len(e.records()) == 10)
		}
	}
	otel := func() []gorm.Plugin { return []gorm.Plugin{&otelLike{}} }
	prom := func() []gorm.Plugin { return []gorm.Plugin{&prometheusLike{}} }
	shard := func() []gorm.Plugin { return []gorm.Plugin{&shardingLike{}} }
	three := func() []gorm.Plugin { return []gorm.Plugin{&otelLike{}, &shardingLike{}, &prometheusLike{}} }

	sharded := func(e *env) {
		e.exec("CREATE TABLE companies_01 (id bigserial PRIMARY KEY, name text)")
		e.did("create", e.db.Create(&Company{Name: "a"}))
		e.did("update", e.db.Model(&Company{}).Where("name = ?", "a").Update("name", "b"))
		var c []Company
		e.did("find", e.db.Find(&c), c)
		e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
			e.did("create", tx.Create(&Company{Name: "gone"}))
			e.is("not committed by its first statement", e.count("SELECT count(*) FROM companies_01 WHERE name = 'gone'") == 0)
			e.did("find", tx.Find(&c), c)
			return errInner
		}))
		e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error { return tx.Create(&Company{Name: "c"}).Error }))
		var n int64
		e.did("count", e.db.Model(&Company{}).Count(&n), n)
		var name string
		e.got("row", e.db.Model(&Company{}).Select("name").Order("id").Limit(1).Row().Scan(&name), name)
		e.note("sharded %d, not %d", e.count("SELECT count(*) FROM companies_01"), e.count("SELECT count(*) FROM companies"))
		if e.hooked() {
			e.is("each statement was observed once", len(e.records()) == 8)
			e.is("reads went to replicas", e.part.nodes["replica1"]+e.part.nodes["replica2"] == 3)
			e.events("autocommit before commit", "autocommit committed", "autocommit before commit", "autocommit committed",
				"transaction begin", "transaction rolled_back", "transaction begin", "transaction before commit", "transaction committed")
		}
	}
	behaviours["G13"] = []scenario{
		{name: "with-OpenTelemetry-before", before: otel, run: work},
		{name: "with-OpenTelemetry-after", after: otel, run: work},
		{name: "with-Prometheus-before", before: prom, run: work},
		{name: "with-Prometheus-after", after: prom, run: work},
		{name: "with-sharding-before", before: shard, ownTables: true, run: sharded},
		{name: "with-sharding-after", after: shard, ownTables: true, run: sharded},
		{name: "with-all-of-them-before", before: three, run: work},
		{name: "with-all-of-them-after", after: three, run: work},
		{name: "with-OpenTelemetry-and-prepared", after: otel, config: func(c *gorm.Config) { c.PrepareStmt = true }, run: work},
		{name: "Use-twice", run: func(e *env) {
			if e.hub == nil {
				e.leave()
				return
			}
			again, err := hook.Attach(e.db)
			e.must(err)
			e.is("one layer for a DB", again == e.hub)
			session, err := hook.Attach(e.db.Session(&gorm.Session{}))
			e.must(err)
			e.is("for its sessions too", session == e.hub)
			e.is("by hand it is an error", errors.Is(e.db.Use(e.hub), gorm.ErrRegistered))
		}},
		{name: "two-routers-are-an-error", run: func(e *env) {
			if !e.hooked() {
				e.leave()
				return
			}
			_, err := e.hub.Register(newPart(e.t, e, e.hub))
			e.is("names the conflict", err != nil && strings.Contains(err.Error(), "two "))
			e.did("unharmed", e.db.Create(&Company{Name: "x"}))
		}},
		{name: "two-DBs-in-one-process", run: func(e *env) {
			second := e.open(scenario{})
			if e.hub != nil {
				hub, err := hook.Attach(second)
				e.must(err)
				e.is("a layer of its own", hub != e.hub)
				e.is("the first layer is for the first DB", second.Use(e.hub) != nil)
			}
			e.did("second", second.Create(&Company{Name: "second"}))
			e.did("first", e.db.Create(&Company{Name: "first"}))
			e.got("transactions over both", e.db.Transaction(func(tx *gorm.DB) error {
				return second.Transaction(func(tx2 *gorm.DB) error {
					e.did("first", tx.Create(&Company{Name: "1"}))
					e.did("second", tx2.Create(&Company{Name: "2"}))
					return nil
				})
			}))
			if e.hooked() {
				e.is("the first saw its own only", len(e.records()) == 2)
			}
		}},
		{name: "GORM-over-a-transaction", run: func(e *env) {
			e.seed()
			tx, err := e.raw.BeginTx(e.t.Context(), nil)
			e.must(err)
			db, err := gorm.Open(postgres.New(postgres.Config{Conn: tx}), &gorm.Config{Logger: recorder{e}})
			e.must(err)
			if e.variant != "bare" {
				hub, err := hook.Attach(db)
				e.must(err)
				e.is("it cannot be routed", !hub.Routed())
			}
			e.did("create", db.Create(&Company{Name: "x"}))
			e.got("nested", db.Transaction(func(tx *gorm.DB) error {
				e.did("create", tx.Create(&Company{Name: "y"}))
				return errInner
			}))
			var c []Company
			e.did("find", db.Order("id").Find(&c), c)
			e.must(tx.Rollback())
			e.note("left %d", e.count("SELECT count(*) FROM companies"))
		}},
		{name: "Use-on-a-transaction-leaves-it-alone", run: func(e *env) {
			db := e.open(scenario{})
			tx := db.Begin()
			if e.variant != "bare" {
				_, err := hook.Attach(tx)
				e.must(err)
			}
			e.did("create", tx.Create(&Company{Name: "x"}))
			e.is("still uncommitted", e.count("SELECT count(*) FROM companies") == 0)
			e.did("commit", tx.Commit())
			e.did("create", db.Create(&Company{Name: "y"}))
			e.note("there %d", e.count("SELECT count(*) FROM companies"))
		}},
		{name: "sessions-made-before-Use", run: func(e *env) {
			db := e.open(scenario{})
			old := db.Session(&gorm.Session{PrepareStmt: true})
			where := db.Where("name = ?", "x")
			if e.variant != "bare" {
				_, err := hook.Attach(db)
				e.must(err)
			}
			e.did("create", old.Create(&Company{Name: "x"}))
			var c []Company
			e.did("find", where.Find(&c), c)
			e.got("transaction", old.Transaction(func(tx *gorm.DB) error { return tx.Create(&Company{Name: "y"}).Error }))
		}},
		{name: "dbresolver-used-before", run: func(e *env) {
			db := e.open(scenario{})
			e.must(db.Use(dbresolver.Register(dbresolver.Config{})))
			_, err := hook.Attach(db)
			e.is("refused with what to do", errors.Is(err, hook.ErrDBResolver) && strings.Contains(err.Error(), "remove the db.Use(dbresolver.Register(...)) call"))
			e.did("works as without us", db.Create(&Company{Name: "x"}))
		}},
		{name: "dbresolver-used-after-without-replicas", run: func(e *env) {
			db := e.open(scenario{})
			_, err := hook.Attach(db)
			e.must(err)
			e.must(db.Use(dbresolver.Register(dbresolver.Config{})))
			e.is("a write says it", errors.Is(db.Create(&Company{Name: "x"}).Error, hook.ErrDBResolver))
			e.is("no transaction was begun for it", e.idleInTransaction() == 0)
			e.is("a read says it", errors.Is(db.Find(&[]Company{}).Error, hook.ErrDBResolver))
			e.is("raw says it", errors.Is(db.Exec("SELECT 1").Error, hook.ErrDBResolver))
			_, err = db.Raw("SELECT 1").Rows() //nolint:sqlclosecheck,rowserrcheck // it fails
			e.is("rows say it", errors.Is(err, hook.ErrDBResolver))
			var n int
			e.is("a row says it and does not panic", errors.Is(db.Raw("SELECT 1").Row().Scan(&n), hook.ErrDBResolver))
		}},
		{name: "dbresolver-used-after-with-replicas", run: func(e *env) {
			db := e.open(scenario{})
			_, err := hook.Attach(db)
			e.must(err)
			replica := postgres.New(postgres.Config{Conn: e.replicas[0]})
			err = db.Use(dbresolver.Register(dbresolver.Config{Replicas: []gorm.Dialector{replica}}))
			e.is("refused", errors.Is(err, hook.ErrDBResolver))
			e.did("works on", db.Create(&Company{Name: "x"}))
		}},
		{name: "clauses-of-dbresolver", run: func(e *env) {
			e.seed()
			var replica bool
			e.beginsOnReplica(func() *gorm.DB { return e.db.Clauses(dbresolver.Read).Begin() })
			e.did("write", e.db.Clauses(dbresolver.Write).Raw("SELECT pg_is_in_recovery()").Scan(&replica))
			e.is("on the primary", !replica)
			tx := e.db.Clauses(dbresolver.Write).Begin()
			e.did("begin", tx.Create(&Company{Name: "x"}))
			e.did("commit", tx.Commit())
			e.did("use", e.db.Clauses(dbresolver.Use("replica1")).Order("id").Find(&[]Company{}))
			prepared := e.db.Session(&gorm.Session{PrepareStmt: true})
			tx = prepared.Clauses(dbresolver.Write).Begin()
			e.did("prepared begin", tx.Create(&Company{Name: "p"}))
			e.did("prepared commit", tx.Commit())
		}},
	}
}

package hook_test

import (
	"time"

	"gorm.io/gorm"
)

// Member grows by a column.
type Member struct {
	ID   uint
	Name string `gorm:"index"`
}

type memberWithMail struct {
	Member
	Mail string `gorm:"uniqueIndex;size:100"`
}

func (memberWithMail) TableName() string { return "members" }

func init() {
	prepare := func(c *gorm.Config) { c.PrepareStmt = true }
	migrate := func(e *env) {
		for range 2 { // the second finds all there
			e.got("migrate", e.db.AutoMigrate(&Member{}))
			e.did("create", e.db.Create(&Member{Name: "m"}))
			var ms []Member
			e.did("find", e.db.Order("id").Find(&ms), ms)
		}
		for range 2 {
			e.got("grow", e.db.AutoMigrate(&memberWithMail{}))
			e.did("update", e.db.Model(&memberWithMail{}).Where("id = 1").Update("mail", "a@b"))
			if e.variant == "bare" { // fails with 0A000 once: pgx has a plan from before
				e.muted(func() { e.db.Order("id").Find(&[]memberWithMail{}) })
			}
			for range 3 {
				var ms []memberWithMail
				e.did("find", e.db.Order("id").Find(&ms), ms)
			}
		}
		e.did("create", e.db.Create(&memberWithMail{Mail: "a@b"}))
	}
	behaviours["G11"] = []scenario{
		{name: "AutoMigrate", ownTables: true, run: migrate},
		{name: "AutoMigrate-prepared", ownTables: true, config: prepare, run: migrate},
		{name: "AutoMigrate-simple-protocol", ownTables: true, dialect: simpleProtocol, run: migrate},
		{name: "AutoMigrate-without-transactions", ownTables: true, config: func(c *gorm.Config) { c.SkipDefaultTransaction, c.PrepareStmt = true, true }, run: migrate},
		{name: "AutoMigrate-inside-a-transaction", ownTables: true, run: func(e *env) {
			e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
				if err := tx.AutoMigrate(&Member{}); err != nil {
					return err
				}
				e.did("create", tx.Create(&Member{Name: "m"}))
				if err := tx.AutoMigrate(&memberWithMail{}); err != nil {
					return err
				}
				var ms []memberWithMail
				e.did("find", tx.Find(&ms), ms)
				return errInner
			}))
			e.note("has it: %v", e.db.Migrator().HasTable("members"))
		}},
		{name: "AutoMigrate-of-all-models", ownTables: true, run: func(e *env) {
			var err error
			e.muted(func() { // in the order of a map
				err = e.db.AutoMigrate(&Company{}, &User{}, &Account{}, &Pet{}, &Toy{}, &Language{}, &Order{}, &Line{}, &Document{}, &Witness{})
			})
			e.got("migrate", err)
			e.note("constraints %d", e.count("SELECT count(*) FROM information_schema.table_constraints WHERE table_schema = $1", e.schema))
		}},
		{name: "Migrator", ownTables: true, config: prepare, run: func(e *env) {
			m := e.db.Migrator()
			e.got("create", m.CreateTable(&Member{}))
			e.note("has table %v, column %v, no column %v, index %v", m.HasTable(&Member{}), m.HasColumn(&Member{}, "Name"), m.HasColumn(&Member{}, "no"), m.HasIndex(&Member{}, "Name"))
			e.note("database is ours: %v", m.CurrentDatabase() == e.database)
			types, err := m.ColumnTypes(&Member{})
			e.got("column types", err)
			for _, c := range types {
				n, ok := c.Nullable()
				e.note("column %s %s %v %v", c.Name(), c.DatabaseTypeName(), n, ok)
			}
			e.got("add", m.AddColumn(&memberWithMail{}, "Mail"))
			e.got("rename", m.RenameColumn(&memberWithMail{}, "mail", "post"))
			e.note("has it %v", m.HasColumn(&memberWithMail{}, "post"))
			e.got("drop column", m.DropColumn(&memberWithMail{}, "post"))
			e.got("rename table", m.RenameTable("members", "old_members"))
			list, err := m.GetTables()
			e.got("tables", err, len(list))
			e.got("drop", m.DropTable("old_members"))
			e.note("has it %v", m.HasTable("old_members"))
			for _, r := range e.records() {
				e.is("on the primary: "+r.SQL, len(r.Text.Reads) == 0 || r.Node == e.hub.Primary())
			}
		}},
		{name: "DB-Ping-Stats-and-setters", run: func(e *env) {
			pool, err := e.db.DB()
			e.must(err)
			e.got("ping", pool.Ping())
			pool.SetMaxOpenConns(3)
			pool.SetMaxIdleConns(1)
			pool.SetConnMaxLifetime(time.Hour)
			e.note("max open %d", pool.Stats().MaxOpenConnections)
			var replica bool
			e.must(pool.QueryRow("SELECT pg_is_in_recovery()").Scan(&replica))
			e.is("it is the primary's", !replica)
			if p, ok := e.db.ConnPool.(interface{ Ping() error }); ok {
				e.got("ping of the pool", p.Ping())
			}
			e.must(e.db.Transaction(func(tx *gorm.DB) error {
				inside, err := tx.DB()
				e.got("in a transaction", err)
				e.is("the same", inside == pool)
				return nil
			}))
			prepared, err := e.db.Session(&gorm.Session{PrepareStmt: true}).DB()
			e.got("prepared", err)
			e.is("the same", prepared == pool)
		}},
		{name: "one-connection-is-enough", config: prepare, run: func(e *env) {
			pool, err := e.db.DB()
			e.must(err)
			pool.SetMaxOpenConns(1)
			e.seed()
			var us []User
			e.did("find", e.db.Preload("Pets").Order("id").Find(&us), us)
			e.did("create", e.db.Create(&User{Name: "u", Pets: []Pet{{Name: "p"}}}))
			e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
				var n int
				e.did("with a function that is not known", tx.Raw("SELECT no_such_function()").Scan(&n))
				return errInner
			}))
		}},
		{name: "statements-of-the-pool-itself", run: func(e *env) {
			e.seed()
			ctx := e.t.Context()
			p := e.db.ConnPool
			var n int
			e.got("row", p.QueryRowContext(ctx, "SELECT count(*) FROM users").Scan(&n), n)
			res, err := p.ExecContext(ctx, "UPDATE users SET age = 1 WHERE id = $1", 1)
			e.must(err)
			n64, _ := res.RowsAffected()
			e.got("exec", err, n64)
			rows, err := p.QueryContext(ctx, "SELECT name FROM users ORDER BY id")
			e.must(err)
			for rows.Next() {
				var s string
				e.got("row", rows.Scan(&s), s)
			}
			e.must(rows.Close())
			_, err = p.QueryContext(ctx, "SELECT nothing") //nolint:sqlclosecheck,rowserrcheck // it fails
			e.got("error", err)
			stmt, err := p.PrepareContext(ctx, "SELECT age FROM users WHERE id = $1")
			e.must(err)
			defer stmt.Close()
			e.got("prepared", stmt.QueryRow(1).Scan(&n), n)
			if e.hooked() {
				e.is("four were observed", len(e.records()) == 4)
				e.events("autocommit before commit", "autocommit committed")
			}
		}},
	}
}

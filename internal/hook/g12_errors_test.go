package hook_test

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
)

func init() {
	translate := func(c *gorm.Config) { c.TranslateError = true }
	pgCode := func(err error) string {
		var pg *pgconn.PgError
		if errors.As(err, &pg) {
			return pg.Code + " " + pg.ConstraintName
		}
		return "no PgError"
	}
	all := func(e *env) {
		e.seed()
		e.exec("INSERT INTO accounts (number) VALUES ('dup')")
		dup := func(db *gorm.DB) error { return db.Create(&Account{Number: "dup"}).Error }
		err := dup(e.db)
		e.note("create: %v, %s, translated %v", err, pgCode(err), errors.Is(err, gorm.ErrDuplicatedKey))
		err = e.db.Transaction(func(tx *gorm.DB) error { return dup(tx) })
		e.note("transaction: %v, %s, translated %v", err, pgCode(err), errors.Is(err, gorm.ErrDuplicatedKey))
		err = dup(e.db.Session(&gorm.Session{SkipDefaultTransaction: true, PrepareStmt: true}))
		e.note("autocommit, prepared: %v, %s, translated %v", err, pgCode(err), errors.Is(err, gorm.ErrDuplicatedKey))
		err = e.db.First(&User{}, 99).Error
		e.note("not found: %v, %v", err, errors.Is(err, gorm.ErrRecordNotFound))
		for _, query := range []string{"SELECT no_such FROM users", "SELECT 1/0", "INSERT INTO accounts (number) VALUES ('dup')", "SELECT 'x'::int"} {
			err = e.db.Exec(query).Error
			e.note("exec %s: %v, %s", query, err, pgCode(err))
			err = e.db.Raw(query).Scan(&[]map[string]any{}).Error
			e.note("scan %s: %v, %s", query, err, pgCode(err))
			err = e.db.Raw(query).Find(&[]User{}).Error
			e.note("find %s: %v, %s", query, err, pgCode(err))
			var n any
			err = e.db.Raw(query).Row().Scan(&n)
			e.note("row %s: %v, %s", query, err, pgCode(err))
			_, err = e.db.Raw(query).Rows() //nolint:sqlclosecheck,rowserrcheck // it fails
			e.note("rows %s: %v, %s", query, err, pgCode(err))
		}
		e.did("scan into a wrong type", e.db.Raw("SELECT name FROM users").Scan(new(int)))
		e.did("no transaction", e.db.Commit())
		e.did("preload without a model", e.db.Table("users").Preload("Pets").Find(&[]map[string]any{}))
	}
	behaviours["G12"] = []scenario{
		{name: "errors-of-the-driver-are-reachable", run: all},
		{name: "TranslateError", config: translate, run: all},
		{name: "TranslateError-prepared", config: func(c *gorm.Config) {
			translate(c)
			c.SkipDefaultTransaction = true
		}, run: all},
		{name: "deferred-constraint-fails-at-commit", ownTables: true, run: func(e *env) {
			e.exec("CREATE TABLE later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
			err := e.db.Transaction(func(tx *gorm.DB) error {
				e.did("one", tx.Exec("INSERT INTO later VALUES (1)"))
				e.did("two", tx.Exec("INSERT INTO later VALUES (1)"))
				return nil
			})
			e.note("commit: %v, %s", err, pgCode(err))
			e.events("transaction begin", "transaction before commit", "transaction rolled_back")
		}},
	}
}

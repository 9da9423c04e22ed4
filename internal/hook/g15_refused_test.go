package hook_test

import (
	"errors"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

var errRefused = errors.New("refused by a limit")

// refusing runs f with a gate or a charger that refuses.
func refusing(stage string, f func(e *env)) func(e *env) {
	return func(e *env) {
		e.seed()
		if !e.hooked() {
			e.leave()
			return
		}
		e.part.refuse = func(s string, r *hook.Record) error {
			if s == stage && (r.Text == nil || r.Text.MayWrite() || r.Access == hook.ReadOnly) {
				return errRefused
			}
			return nil
		}
		f(e)
		for _, r := range e.records() {
			if errors.Is(r.Err, errRefused) {
				e.is("refused is the outcome: "+r.SQL, r.Outcome == hook.Refused && r.Node == nil)
			}
		}
		e.part.refuse = nil
		e.did("usable afterwards", e.db.Create(&Company{Name: "after"}))
		e.did("usable afterwards", e.db.First(&Company{}))
	}
}

func init() {
	refused := func(e *env, what string, err error) {
		e.t.Helper()
		e.is(what+" gives the refusal", errors.Is(err, errRefused))
	}
	reads := func(e *env) {
		for _, db := range []*gorm.DB{e.db, e.db.Session(&gorm.Session{PrepareStmt: true}), e.db.WithContext(e.t.Context())} {
			var n int
			var us []User
			refused(e, "Find", db.Find(&us).Error)
			refused(e, "First", db.First(&User{}).Error)
			refused(e, "Count", db.Model(&User{}).Count(new(int64)).Error)
			refused(e, "Pluck", db.Model(&User{}).Pluck("age", &[]int{}).Error)
			refused(e, "Scan", db.Raw("SELECT 1").Scan(&n).Error)
			refused(e, "Row", db.Raw("SELECT 1").Row().Scan(&n))
			refused(e, "Row.Err", db.Model(&User{}).Select("age").Row().Err())
			rows, err := db.Raw("SELECT 1").Rows() //nolint:sqlclosecheck,rowserrcheck // refused
			refused(e, "Rows", err)
			e.is("no rows", rows == nil)
			_, err = gorm.G[User](db).First(e.t.Context())
			refused(e, "generic First", err)
			refused(e, "generic Row", gorm.G[User](db).Raw("SELECT 1").Row(e.t.Context()).Scan(&n))
			refused(e, "FindInBatches", db.FindInBatches(&us, 2, func(*gorm.DB, int) error { return nil }).Error)
		}
		refused(e, "the pool's own row", e.db.ConnPool.QueryRowContext(e.t.Context(), "SELECT 1").Scan(new(int)))
		e.is("nothing was routed", e.part.turn == 0)
	}
	behaviours["G15"] = []scenario{
		{name: "reads-refused-by-a-gate", run: refusing("gate", reads)},
		{name: "reads-refused-by-a-charger", run: refusing("charge", reads)},
		{name: "writes-refused-before-GORMs-transaction", run: refusing("gate", func(e *env) {
			for _, db := range []*gorm.DB{e.db, e.db.Session(&gorm.Session{SkipDefaultTransaction: true}), e.db.Session(&gorm.Session{PrepareStmt: true})} {
				refused(e, "Create", db.Create(&Company{Name: "x"}).Error)
				refused(e, "Save", db.Save(&Company{ID: 1, Name: "x"}).Error)
				refused(e, "Updates", db.Model(&Company{ID: 1}).Update("name", "x").Error)
				refused(e, "Delete", db.Delete(&Company{ID: 1}).Error)
				refused(e, "Exec", db.Exec("DELETE FROM companies").Error)
			}
			_, events := e.part.seen()
			e.is("no transaction was begun", len(events) == 0)
			e.is("nothing was written", e.count("SELECT count(*) FROM companies WHERE name <> 'x'") == 2)
			e.is("each refusal was observed once", len(e.records()) == 15)
		})},
		{name: "writes-refused-with-SkipDefaultTransaction", config: func(c *gorm.Config) { c.SkipDefaultTransaction = true },
			run: refusing("gate", func(e *env) {
				refused(e, "Create", e.db.Create(&Company{Name: "x"}).Error)
				e.is("nothing was written", e.count("SELECT count(*) FROM companies") == 2)
			})},
		{name: "refused-inside-a-transaction-rolls-back", run: refusing("gate", func(e *env) {
			e.part.refuse = nil
			err := e.db.Transaction(func(tx *gorm.DB) error {
				e.must(tx.Create(&Company{Name: "x"}).Error)
				e.part.refuse = func(_ string, r *hook.Record) error {
					if r.Text == nil || r.Access != hook.NeedsPrimary { // SAVEPOINT and its like pass
						return errRefused
					}
					return nil
				}
				refused(e, "row", tx.Raw("SELECT 1").Row().Scan(new(int)))
				refused(e, "nested", tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&Company{Name: "y"}).Error }))
				refused(e, "prepared row", tx.Session(&gorm.Session{PrepareStmt: true}).Raw("SELECT 1").Row().Scan(new(int)))
				return tx.Create(&Company{Name: "z"}).Error
			})
			refused(e, "transaction", err)
			e.is("rolled back", e.count("SELECT count(*) FROM companies") == 2)
		})},
		{name: "refused-preload-fails-its-parent", run: refusing("gate", func(e *env) {
			e.part.refuse = func(_ string, r *hook.Record) error {
				if r.Parent != nil {
					return errRefused
				}
				return nil
			}
			refused(e, "Find", e.db.Preload("Pets").Find(&[]User{}).Error)
		})},
		{name: "refusal-is-not-translated-away", config: func(c *gorm.Config) { c.TranslateError = true }, run: refusing("gate", func(e *env) {
			refused(e, "Create", e.db.Create(&Company{Name: "x"}).Error)
			refused(e, "Find", e.db.Find(&[]Company{}).Error)
		})},
	}
}

package hook_test

import (
	"slices"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func init() {
	behaviours["G01"] = []scenario{
		{name: "DryRun-reaches-no-stage", run: func(e *env) {
			e.seed()
			dry := e.db.Session(&gorm.Session{DryRun: true})
			e.did("find", dry.Find(&[]User{}, "age > ?", 1))
			e.did("create", dry.Create(&Company{Name: "dry"}))
			e.did("update", dry.Model(&Company{ID: 1}).Update("name", "dry"))
			e.did("delete", dry.Delete(&Company{ID: 1}))
			_, err := dry.Model(&User{}).Rows()
			e.got("rows", err)
			e.is("nothing was written", e.count("SELECT count(*) FROM companies WHERE name = 'dry'") == 0 && e.count("SELECT count(*) FROM companies") == 2)
			e.reachedNoStage()
		}},
		{name: "DryRun-of-the-whole-configuration", config: func(c *gorm.Config) { c.DryRun = true }, run: func(e *env) {
			e.did("first", e.db.First(&User{}, 1))
			e.did("save", e.db.Save(&User{ID: 3, Name: "x"}))
			e.reachedNoStage()
		}},
		{name: "ToSQL-reaches-no-stage", run: func(e *env) {
			e.seed()
			e.note("%s", e.db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Where("name = ?", "ann").Preload("Pets").Find(&[]User{}) }))
			e.note("%s", e.db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Model(&User{}).Where("id = ?", 1).Update("age", 9) }))
			e.reachedNoStage()
		}},
		{name: "explained-statements-reach-no-stage", run: func(e *env) {
			e.seed()
			if !e.hooked() {
				return
			}
			hub, err := hook.Attach(e.db)
			e.is("the hub is there", err == nil)
			before, events := e.part.seen()
			gated, charged := e.part.gated, e.part.charged
			var seen []string
			err = hub.Explain(e.db, func(tx *gorm.DB) error {
				inner := tx.Session(&gorm.Session{NewDB: true}).Model(&Pet{}).Select("user_id")
				e.is("find", tx.Where("id IN (?)", inner).Find(&[]User{}).Error == nil)
				e.is("create", tx.Create(&Company{Name: "dry"}).Error == nil)
				e.is("raw", tx.Exec("DELETE FROM companies").Error == nil)
				var n int64
				e.is("scan", tx.Raw("SELECT 1 AS n").Scan(&n).Error == nil)
				return tx.Transaction(func(*gorm.DB) error { return nil })
			}, func(r *hook.Record) { seen = append(seen, r.Chain.String()+" "+r.Access.String()) })
			e.is("no transaction was begun", err != nil)
			e.is("each was seen once", slices.Equal(seen, []string{"query read", "create write", "raw write", "row read"}))
			after, eventsAfter := e.part.seen()
			e.is("no stage was reached", len(after) == len(before) && len(eventsAfter) == len(events) && e.part.gated == gated && e.part.charged == charged)
			e.is("nothing was written", e.count("SELECT count(*) FROM companies") == 2)
		}},
		{name: "subquery-argument-counts-with-its-statement", run: func(e *env) {
			e.seed()
			var users []User
			e.did("where in", e.db.Where("id IN (?)", e.db.Model(&Pet{}).Select("user_id").Where("name LIKE ?", "%t%")).Order("id").Find(&users), users)
			var n int64
			e.did("from", e.db.Table("(?) AS u", e.db.Model(&User{}).Select("name")).Count(&n), n)
			e.did("update", e.db.Model(&User{}).Where("id = 1").Update("company_id", e.db.Model(&Company{}).Select("id").Where("name = ?", "globex")))
			if e.hooked() {
				records, _ := e.part.seen()
				e.is("three statements were observed", len(records) == 3)
				e.is("two reads were charged", e.part.charged == 2)
			}
		}},
		{name: "statement-that-GORM-refuses-is-not-observed", run: func(e *env) {
			e.did("update without where", e.db.Model(&User{}).Update("age", 1))
			e.did("delete without where", e.db.Delete(&User{}))
			e.did("no destination", e.db.Find(nil))
			if e.hooked() {
				records, _ := e.part.seen()
				e.is("no statement was observed", len(records) == 0)
			}
		}},
	}
}

// reachedNoStage fails when a part saw anything.
func (e *env) reachedNoStage() {
	e.t.Helper()
	if !e.hooked() {
		return
	}
	records, events := e.part.seen()
	p := e.part
	if len(records)+len(events)+p.gated+p.charged+p.served+p.turn > 0 {
		e.t.Errorf("seen by the parts: records %v, events %v, gated %d, charged %d, served %d, routed %d", records, events, p.gated, p.charged, p.served, p.turn)
	}
}

package hook_test

import (
	"fmt"

	"gorm.io/gorm"
)

func init() {
	behaviours["G10"] = []scenario{
		{name: "soft-delete-and-Unscoped", run: func(e *env) {
			e.seed()
			e.did("delete", e.db.Delete(&User{}, 1))
			var us []User
			e.did("the rest", e.db.Order("id").Find(&us), us)
			e.did("with the deleted", e.db.Unscoped().Order("id").Find(&us), len(us), us[0].DeletedAt)
			e.did("preloaded", e.db.Preload("Manager").Order("id").Find(&us), us)
			e.did("restore", e.db.Unscoped().Model(&User{}).Where("id = 1").Update("deleted_at", nil))
			e.did("for ever", e.db.Unscoped().Delete(&User{ID: 1}))
			e.note("left %d", e.count("SELECT count(*) FROM users"))
			e.did("by a condition", e.db.Where("name = ?", "bob").Delete(&User{}))
			if e.hooked() {
				_, events := e.part.seen()
				e.is("each delete had a transaction", len(events) == 12)
			}
		}},
		{name: "hooks-run-in-order", run: func(e *env) {
			ctx := onHook(e.t.Context(), func(name string, w *Witness, _ *gorm.DB) error {
				e.note("hook %s of %d %s", name, w.ID, w.Name)
				return nil
			})
			db := e.db.WithContext(ctx)
			ws := []Witness{{Name: "a"}, {Name: "b"}}
			e.did("create", db.Create(&ws), ws)
			e.did("find", db.Order("id").Find(&ws), ws)
			e.did("update", db.Model(&ws[0]).Update("name", "c"))
			e.did("save", db.Save(&ws[1]))
			e.did("delete", db.Delete(&ws[1]))
			e.did("not found", db.First(&Witness{}, 99))
			e.did("without", db.Session(&gorm.Session{SkipHooks: true}).Create(&Witness{Name: "x"}))
		}},
		{name: "each-hook-can-refuse", run: func(e *env) {
			e.seed()
			for _, refuse := range []string{"BeforeSave", "BeforeCreate", "AfterCreate", "AfterSave", "BeforeUpdate", "AfterUpdate", "BeforeDelete", "AfterDelete", "AfterFind"} {
				ctx := onHook(e.t.Context(), func(name string, _ *Witness, _ *gorm.DB) error {
					if name == refuse {
						return fmt.Errorf("no to %s", name)
					}
					return nil
				})
				db := e.db.WithContext(ctx)
				e.did(refuse+" create", db.Create(&Witness{Name: "n"}))
				e.did(refuse+" update", db.Model(&Witness{ID: 1}).Update("name", refuse))
				e.did(refuse+" delete", db.Delete(&Witness{ID: 2}))
				e.did(refuse+" find", db.First(&Witness{}, 3))
				e.note("on the server: %d, %d", e.count("SELECT count(*) FROM witnesses"), e.count("SELECT count(*) FROM witnesses WHERE name = $1", refuse))
			}
		}},
		{name: "statements-in-hooks", run: func(e *env) {
			ctx := onHook(e.t.Context(), func(name string, w *Witness, tx *gorm.DB) error {
				if name != "BeforeCreate" && name != "AfterCreate" {
					return nil
				}
				var n int64
				e.did("count in "+name, tx.Model(&Witness{}).Count(&n), n)
				return tx.Create(&Company{Name: name + " " + w.Name}).Error
			})
			e.did("create", e.db.WithContext(ctx).Create(&[]Witness{{Name: "a"}, {Name: "b"}}))
			e.note("companies %d", e.count("SELECT count(*) FROM companies"))
			e.is("in one transaction", e.count("SELECT count(DISTINCT xmin::text) FROM companies") == 1)
		}},
		{name: "SetColumn-and-Changed", run: func(e *env) {
			e.seed()
			ctx := onHook(e.t.Context(), func(name string, _ *Witness, tx *gorm.DB) error {
				if name == "BeforeUpdate" {
					e.note("changed %v", tx.Statement.Changed("Name"))
					tx.Statement.SetColumn("Name", "by the hook")
				}
				return nil
			})
			w := Witness{ID: 1}
			e.did("update", e.db.WithContext(ctx).Model(&w).Updates(map[string]any{"name": "z"}), w)
		}},
		{name: "serializers-embedded-and-other-types", run: func(e *env) {
			note := "n"
			d := Document{ID: "00000000-0000-0000-0000-00000000000a", Tags: map[string]string{"k": "v"}, Blob: []string{"x", "y"}, At: 1700000000,
				Price: Money{Amount: 5, Currency: "EUR"}, Body: []byte{0, 1, 255}, Note: &note}
			e.did("create", e.db.Create(&d), d)
			for range 2 {
				var got Document
				e.did("first", e.db.First(&got), got)
				var all []Document
				e.did("find", e.db.Where("price_amount = ?", 5).Find(&all), all)
			}
			e.did("update", e.db.Model(&d).Updates(Document{Tags: map[string]string{"k": "w"}, Blob: []string{"z"}}))
			e.did("null", e.db.Model(&d).Update("note", nil))
			var got Document
			e.did("first", e.db.First(&got, "id = ?", d.ID), got)
		}},
		{name: "composite-keys", run: func(e *env) {
			e.seed()
			var o Order
			e.did("first", e.db.First(&o, "region = ? AND no = ?", "eu", 2), o)
			e.did("by struct", e.db.Take(&o, Order{Region: "us", No: 1}), o)
			e.did("update", e.db.Model(&Order{Region: "eu", No: 2}).Update("total", 21))
			e.did("save", e.db.Save(&Order{Region: "eu", No: 9, Total: 9}))
			e.did("delete", e.db.Delete(&Order{Region: "eu", No: 1}))
			var os []Order
			e.did("in", e.db.Where("(region, no) IN ?", [][]any{{"eu", 2}, {"us", 1}}).Order("region").Find(&os), os)
		}},
		{name: "table-names", run: func(e *env) {
			e.seed()
			var us []User
			e.did("alias", e.db.Table("users AS u").Where("u.age > 35").Order("u.id").Find(&us), us)
			e.did("schema", e.db.Table(e.schema+".users").Order("id").Find(&us), us)
			e.did("quoted", e.db.Table(`"users"`).Select("name").Order("id").Scan(&us), us)
			e.did("write by table", e.db.Table("companies").Where("id = 1").Update("name", "t"))
			e.did("create by table", e.db.Table("companies").Create(map[string]any{"name": "u"}))
			e.did("missing table", e.db.Table("nothing").Find(&us))
		}},
		{name: "GormValue-that-queries", run: func(e *env) {
			e.seed()
			e.did("create", e.db.Model(&Company{}).Create(map[string]any{"name": lookedUp{2}}))
			e.got("in a transaction", e.db.Transaction(func(tx *gorm.DB) error {
				return tx.Model(&Company{ID: 1}).Update("name", lookedUp{3}).Error
			}))
			var us []User
			e.did("in a condition", e.db.Where("name = ?", lookedUp{1}).Find(&us), us)
			e.did("prepared", e.db.Session(&gorm.Session{PrepareStmt: true}).Where("name = ?", lookedUp{1}).Find(&us), us)
			var c []Company
			e.did("all", e.db.Order("id").Find(&c), c)
		}},
	}
}

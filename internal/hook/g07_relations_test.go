package hook_test

import (
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

func init() {
	seeded := func(f func(e *env)) func(e *env) { return func(e *env) { e.seed(); f(e) } }
	behaviours["G07"] = []scenario{
		{name: "Preload", run: seeded(func(e *env) {
			var users []User
			e.did("one", e.db.Preload("Pets").Order("id").Find(&users), users)
			var nested []User
			e.did("nested", e.db.Preload("Pets.Toys").Preload("Manager.Company").Preload("Languages").Order("id").Find(&nested), nested)
			var some []User
			e.did("conditional", e.db.Preload("Pets", "name <> ?", "tom").Order("id").Find(&some), some)
			var f []User
			e.did("function", e.db.Preload("Pets", func(tx *gorm.DB) *gorm.DB { return tx.Order("pets.name DESC").Limit(2) }).Order("id").Find(&f), f)
			var all User
			e.did("associations", e.db.Preload(clause.Associations).First(&all, 1), all)
			e.did("unknown relation", e.db.Preload("Nothing").Find(&[]User{}))
			e.did("nobody", e.db.Preload("Pets").Find(&[]User{}, "id = 99"))
		})},
		{name: "Preload-tells-its-parent-and-uses-its-node", run: seeded(func(e *env) {
			var users []User
			e.did("find", e.db.Preload("Pets.Toys").Order("id").Find(&users), users)
			r := e.records()
			if !e.hooked() {
				return
			}
			e.is("three statements", len(r) == 3)
			e.is("no parent above", r[0].Parent == nil)
			e.is("parents", r[1].Parent != nil && r[2].Parent != nil && r[1].Parent.SQL == r[0].SQL && r[2].Parent.SQL == r[1].SQL)
			e.is("one node", r[1].Node == r[0].Node && r[2].Node == r[0].Node)
			e.is("the parent is not blamed for its preloads", r[0].Start.Add(r[0].Duration) <= r[1].Start)
		})},
		{name: "Preload-in-a-transaction-and-prepared", config: func(c *gorm.Config) { c.PrepareStmt = true }, run: seeded(func(e *env) {
			e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
				e.did("update", tx.Model(&Pet{ID: 1}).Update("name", "max"))
				var u User
				e.did("own write through a preload", tx.Preload("Pets").Preload("Languages").First(&u, 1), u)
				return nil
			}))
		})},
		{name: "Joins", run: seeded(func(e *env) {
			var users []User
			e.did("relation", e.db.Joins("Company").Order("users.id").Find(&users), users)
			e.did("nested relation", e.db.Joins("Manager").Joins("Manager.Company").Order("users.id").Find(&users), users)
			e.did("inner", e.db.InnerJoins("Account").Order("users.id").Find(&users), users)
			e.did("conditional", e.db.Joins("Account", e.db.Where(&Account{Number: "a-2"})).Order("users.id").Find(&users), users)
			type row struct{ Name, Pet string }
			var rows []row
			e.did("raw", e.db.Model(&User{}).Select("users.name, pets.name AS pet").Joins("JOIN pets ON pets.user_id = users.id").Order("pets.id").Scan(&rows), rows)
			e.did("with a preload", e.db.Joins("Company").Preload("Company").Preload("Pets").Order("users.id").Find(&users), users)
		})},
		{name: "Association", run: seeded(func(e *env) {
			u := User{ID: 1}
			e.must(e.db.First(&u).Error)
			a := func(name string) *gorm.Association { return e.db.Model(&u).Association(name) }
			var pets []Pet
			e.got("find", a("Pets").Find(&pets), pets)
			e.got("find conditional", a("Pets").Find(&pets, "name = ?", "tom"), pets)
			e.note("count %d", a("Pets").Count())
			e.got("append", a("Pets").Append(&Pet{Name: "new"}))
			e.note("count %d", a("Pets").Count())
			e.got("replace", a("Languages").Replace([]Language{{Code: "de"}, {Code: "pl", Name: "Polish"}}))
			e.note("count %d", a("Languages").Count())
			e.got("delete", a("Languages").Delete(Language{Code: "de"}))
			e.got("clear", a("Languages").Clear())
			e.got("replace belongs to", a("Company").Replace(&Company{Name: "own"}))
			e.got("clear has one", a("Account").Clear())
			e.got("unknown", a("Nothing").Error)
			var left User
			e.did("afterwards", e.db.Preload(clause.Associations).First(&left, 1), left)
		})},
		{name: "Association-in-a-transaction", run: seeded(func(e *env) {
			e.got("transaction", e.db.Transaction(func(tx *gorm.DB) error {
				if err := tx.Model(&User{ID: 2}).Association("Pets").Append(&Pet{Name: "gone"}); err != nil {
					return err
				}
				e.note("inside %d", tx.Model(&User{ID: 2}).Association("Pets").Count())
				return errInner
			}))
			e.note("outside %d", e.db.Model(&User{ID: 2}).Association("Pets").Count())
		})},
		{name: "Select-Delete", run: seeded(func(e *env) {
			e.did("delete with pets", e.db.Select("Pets").Delete(&User{ID: 1}))
			e.did("delete with an account", e.db.Select("Account").Delete(&User{ID: 1}))
			var tx *gorm.DB
			e.muted(func() { tx = e.db.Select(clause.Associations).Delete(&User{ID: 2}) }) // in the order of a map
			e.did("delete with associations", tx)
			e.note("left: pets %d, accounts %d, languages %d", e.count("SELECT count(*) FROM pets"), e.count("SELECT count(*) FROM accounts"), e.count("SELECT count(*) FROM user_languages"))
		})},
		{name: "FullSaveAssociations-and-Omit", run: seeded(func(e *env) {
			u := User{ID: 1, Name: "ann", Pets: []Pet{{ID: 1, Name: "full"}}, Company: &Company{ID: 1, Name: "full"}}
			e.did("full save", e.db.Session(&gorm.Session{FullSaveAssociations: true}).Updates(&u), u)
			e.did("omit", e.db.Omit("Company", "Languages.*").Create(&User{Name: "o", Company: &Company{Name: "no"}, Languages: []Language{{Code: "en"}}}))
			e.note("companies %d", e.count("SELECT count(*) FROM companies WHERE name IN ('full', 'no')"))
		})},
		{name: "polymorphic-and-composite", run: seeded(func(e *env) {
			var pets []Pet
			e.did("polymorphic", e.db.Preload("Toys").Order("id").Find(&pets), pets)
			var orders []Order
			e.did("composite", e.db.Preload("Lines").Order("region, no").Find(&orders), orders)
			o := Order{Region: "as", No: 7, Lines: []Line{{Item: "l1"}, {Item: "l2"}}}
			e.did("create", e.db.Create(&o), o)
		})},
	}
}

package hook_test

import (
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

func init() {
	behaviours["G08"] = []scenario{
		{name: "FirstOrCreate-and-FirstOrInit", run: func(e *env) {
			var c Company
			e.did("created", e.db.Where(Company{Name: "a"}).Attrs(Company{ID: 7}).FirstOrCreate(&c), c)
			c = Company{}
			e.did("found", e.db.Where(Company{Name: "a"}).FirstOrCreate(&c), c)
			c = Company{}
			e.did("assigned", e.db.Where(Company{ID: 7}).Assign(Company{Name: "b"}).FirstOrCreate(&c), c)
			c = Company{}
			e.did("initialised", e.db.Where(Company{Name: "zz"}).FirstOrInit(&c), c)
			e.note("on the server: %d", e.count("SELECT count(*) FROM companies WHERE name = 'b'"))
		}},
		{name: "Save", run: func(e *env) {
			e.seed()
			e.did("new", e.db.Save(&Company{Name: "n"}))
			e.did("existing", e.db.Save(&Company{ID: 1, Name: "changed"}))
			e.did("with a key that is not there", e.db.Save(&Company{ID: 99, Name: "upserted"}))
			list := []Company{{ID: 1, Name: "s1"}, {ID: 50, Name: "s50"}, {Name: "s"}}
			e.did("slice", e.db.Save(&list), list)
			var all []Company
			e.did("all", e.db.Order("name").Find(&all), all)
		}},
		{name: "CreateInBatches", run: func(e *env) {
			list := make([]Company, 5)
			for i := range list {
				list[i].Name = string(rune('a' + i))
			}
			e.did("batches", e.db.CreateInBatches(&list, 2), list)
			e.did("empty", e.db.CreateInBatches(&[]Company{}, 2))
			e.events("transaction begin", "transaction before commit", "transaction committed")
		}},
		{name: "CreateInBatches-fails-in-the-second", run: func(e *env) {
			n := "same"
			e.did("batches", e.db.CreateInBatches([]Account{{Number: "1"}, {Number: n}, {Number: n}}, 2))
			e.note("left %d", e.count("SELECT count(*) FROM accounts"))
		}},
		{name: "CreateBatchSize", config: func(c *gorm.Config) { c.CreateBatchSize = 2 }, run: func(e *env) {
			e.did("create", e.db.Create(&[]Company{{Name: "a"}, {Name: "b"}, {Name: "c"}}))
		}},
		{name: "OnConflict", run: func(e *env) {
			e.seed()
			e.did("nothing", e.db.Clauses(clause.OnConflict{DoNothing: true}).Create(&Language{Code: "en", Name: "x"}))
			e.did("update all", e.db.Clauses(clause.OnConflict{UpdateAll: true}).Create(&[]Language{{Code: "en", Name: "y"}, {Code: "it", Name: "Italian"}}))
			e.did("assign", e.db.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "code"}}, DoUpdates: clause.AssignmentColumns([]string{"name"})}).
				Create(&Language{Code: "en", Name: "z"}))
			e.did("conflict", e.db.Create(&Language{Code: "en"}))
			var l []Language
			e.did("all", e.db.Order("code").Find(&l), l)
		}},
		{name: "Returning", run: func(e *env) {
			e.seed()
			var us []User
			e.did("update", e.db.Model(&us).Clauses(clause.Returning{}).Where("id < 3").Update("age", gorm.Expr("age + 1")), us)
			u := User{ID: 1}
			e.did("update columns", e.db.Model(&u).Clauses(clause.Returning{Columns: []clause.Column{{Name: "age"}}}).Updates(map[string]any{"age": 77}), u)
			var pets []Pet
			e.did("delete", e.db.Clauses(clause.Returning{}).Where("user_id = 1").Delete(&pets), pets)
			c := Company{Name: "r"}
			e.did("create", e.db.Clauses(clause.Returning{}).Create(&c), c)
			d := Document{Price: Money{Amount: 1}}
			e.did("default of the database", e.db.Create(&d))
			e.is("its key came back", len(d.ID) == 36)
		}, ownTables: false},
		{name: "Create-from-maps", run: func(e *env) {
			e.did("map", e.db.Model(&Company{}).Create(map[string]any{"name": "m"}))
			e.did("maps", e.db.Model(&Company{}).Create([]map[string]any{{"name": "m1"}, {"name": "m2"}}))
			e.did("expression", e.db.Model(&Company{}).Create(map[string]any{"name": clause.Expr{SQL: "upper(?)", Vars: []any{"e"}}}))
			e.did("pointers", e.db.Create([]*Company{{Name: "p1"}, {Name: "p2"}}))
			e.did("empty slice", e.db.Create(&[]Company{}))
		}},
		{name: "Updates", run: func(e *env) {
			e.seed()
			m := func() *gorm.DB { return e.db.Model(&User{ID: 1}) }
			e.did("struct", m().Updates(User{Name: "x", Age: 0}))
			e.did("map", m().Updates(map[string]any{"name": "y", "age": 0}))
			e.did("select", m().Select("age").Updates(User{Age: 9, Name: "no"}))
			e.did("omit", m().Omit("name").Updates(map[string]any{"age": 10, "name": "no"}))
			e.did("column", m().UpdateColumn("age", gorm.Expr("age * ?", 2)))
			e.did("columns", m().UpdateColumns(User{Age: 3}))
			e.did("nobody", e.db.Model(&User{}).Where("id = ?", 99).Update("age", 1))
			e.did("all", e.db.Session(&gorm.Session{AllowGlobalUpdate: true}).Model(&User{}).Update("age", 1))
			e.did("subquery", e.db.Model(&User{}).Where("id = 1").Update("name", e.db.Model(&Company{}).Select("name").Where("companies.id = users.company_id")))
			var u []User
			e.did("all", e.db.Order("id").Find(&u), u)
		}},
		{name: "read-right-behind-a-write", run: func(e *env) {
			// On replicas, without a wait of the program's.
			for i := range 20 {
				c := Company{Name: "c"}
				e.must(e.db.Create(&c).Error)
				var got Company
				e.did("first", e.db.First(&got, c.ID), got, i)
				e.must(e.db.Model(&c).Update("name", "d").Error)
				e.must(e.db.Where("name = ?", "d").First(&got, c.ID).Error)
				e.must(e.db.Delete(&c).Error)
				e.did("gone", e.db.Find(&[]Company{}))
			}
		}},
	}
}

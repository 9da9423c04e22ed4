package hook_test

import (
	"database/sql"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

func init() {
	seeded := func(f func(e *env)) func(e *env) { return func(e *env) { e.seed(); f(e) } }
	// Each read twice: the part replays every second one from memory.
	twice := func(f func(e *env)) func(e *env) {
		return seeded(func(e *env) { f(e); f(e) })
	}
	behaviours["G09"] = []scenario{
		{name: "First-Last-Take-Find", run: twice(func(e *env) {
			var u User
			e.did("first", e.db.First(&u), u)
			u = User{}
			e.did("last", e.db.Last(&u), u)
			u = User{}
			e.did("take", e.db.Where("name = ?", "bob").Take(&u), u)
			u = User{}
			e.did("not found", e.db.First(&u, 99), u)
			e.did("find nobody", e.db.Find(&u, 99), u)
			var us []User
			e.did("find", e.db.Order("age DESC").Limit(2).Offset(1).Find(&us), us)
			var ps []*User
			e.did("pointers", e.db.Order("id").Find(&ps), ps)
			var arr [3]User
			e.did("array", e.db.Order("id").Find(&arr), arr)
			e.did("not", e.db.Not("name = ?", "bob").Or("age = 40").Order("id").Find(&us), us)
			e.did("map condition", e.db.Where(map[string]any{"name": []string{"ann", "cyd"}}).Order("id").Find(&us), us)
		})},
		{name: "destinations", run: twice(func(e *env) {
			m := func() *gorm.DB { return e.db.Model(&User{}).Order("id") }
			var mp map[string]any
			e.did("map", m().Select("id, name, age, company_id").Take(&mp), mp)
			var mps []map[string]any
			e.did("maps", m().Select("id, name, company_id").Find(&mps), mps)
			var names []string
			e.did("pluck", m().Pluck("name", &names), names)
			var ids []*uint
			e.did("pluck null", m().Pluck("company_id", &ids), ids)
			var when []time.Time
			e.did("pluck time", m().Pluck("created_at", &when), len(when), when[0].UTC())
			var age int
			e.did("scalar", m().Select("max(age)").Limit(1).Offset(0).Session(&gorm.Session{}).Table("users").Order("1").Scan(&age), age)
			var null sql.NullInt64
			e.did("null scalar", e.db.Raw("SELECT NULL::bigint").Scan(&null), null)
			type small struct {
				ID   uint
				Name string
			}
			var s []small
			e.did("smaller struct", m().Find(&s), s)
			var one *small
			e.did("pointer to a struct", m().Take(&one), one)
			var text string
			e.did("text", e.db.Raw("SELECT name FROM users ORDER BY id").Scan(&text), text)
			var bytes []byte
			e.did("bytes", e.db.Raw(`SELECT '\x0102'::bytea`).Scan(&bytes), bytes)
			var f float64
			e.did("numeric", e.db.Raw("SELECT 1.25::numeric").Scan(&f), f)
		})},
		{name: "Count", run: twice(func(e *env) {
			var n int64
			m := func() *gorm.DB { return e.db.Model(&User{}) }
			e.did("all", m().Count(&n), n)
			e.did("where", m().Where("age > 35").Count(&n), n)
			e.did("group", m().Group("company_id").Count(&n), n)
			e.did("distinct", m().Distinct("company_id").Count(&n), n)
			e.did("select", m().Select("count(distinct age)").Count(&n), n)
			e.did("joined", m().Joins("Company").Where(`"Company"."name" = ?`, "acme").Count(&n), n)
			q := m().Where("age > 35").Order("id")
			var us []User
			e.did("count then find", q.Count(&n), n)
			e.did("find after it", q.Find(&us), us)
		})},
		{name: "Raw", run: twice(func(e *env) {
			var us []User
			e.did("find", e.db.Raw("SELECT * FROM users WHERE age > ? ORDER BY id", 35).Find(&us), us)
			e.did("scan", e.db.Raw("SELECT * FROM users WHERE name IN ? ORDER BY id", []string{"ann", "cyd"}).Scan(&us), us)
			e.did("named", e.db.Raw("SELECT * FROM users WHERE name = @name OR age = @age ORDER BY id", sql.Named("name", "ann"), map[string]any{"age": 40}).Scan(&us), us)
			e.did("named struct", e.db.Raw("SELECT * FROM users WHERE name = @Name", struct{ Name string }{"ann"}).Scan(&us), us)
			e.did("named where", e.db.Where("name = @n", sql.Named("n", "bob")).Find(&us), us)
			e.did("exec of a read", e.db.Exec("SELECT * FROM users"))
			e.did("syntax error", e.db.Raw("SELEC 1").Scan(&us))
			e.did("missing argument", e.db.Raw("SELECT * FROM users WHERE id = ? AND age = ?", 1).Scan(&us))
			e.did("comment", e.db.Raw("/* a */ (SELECT * FROM users ORDER BY id) -- b").Scan(&us), us)
		})},
		{name: "Row-and-Rows", run: twice(func(e *env) {
			var name string
			var age int
			e.got("row", e.db.Raw("SELECT name, age FROM users WHERE id = 1").Row().Scan(&name, &age), name, age)
			e.got("row of a model", e.db.Model(&User{}).Select("name").Where("id = ?", 2).Row().Scan(&name), name)
			e.got("row without rows", e.db.Raw("SELECT name FROM users WHERE id = 99").Row().Scan(&name))
			e.got("row with an error", e.db.Raw("SELECT no_such FROM users").Row().Scan(&name))
			rows, err := e.db.Model(&User{}).Order("id").Rows()
			e.must(err)
			types, err := rows.ColumnTypes()
			e.must(err)
			for _, c := range types {
				e.note("column %s %s %v", c.Name(), c.DatabaseTypeName(), c.ScanType())
			}
			for rows.Next() {
				var u User
				e.got("row", e.db.ScanRows(rows, &u), u)
			}
			e.got("rows", rows.Err())
			e.must(rows.Close())
			_, err = e.db.Raw("SELECT no_such FROM users").Rows()
			e.got("rows with an error", err)
			rows, err = e.db.Raw("SELECT 1/(3-id) FROM users ORDER BY id").Rows()
			if err == nil {
				n := 0
				for rows.Next() {
					n++
				}
				err = rows.Err()
				_ = rows.Close()
			}
			e.got("rows that fail later", err)
			rows, err = e.db.Raw("SELECT 1; SELECT 2").Rows()
			e.got("two statements", err)
			if err == nil {
				_ = rows.Close()
			}
		})},
		{name: "generics", run: twice(func(e *env) {
			ctx := e.t.Context()
			u, err := gorm.G[User](e.db).Where("name = ?", "ann").First(ctx)
			e.got("first", err, u)
			us, err := gorm.G[User](e.db).Order("id").Preload("Pets", nil).Find(ctx)
			e.got("find", err, us)
			_, err = gorm.G[User](e.db).Where("id = ?", 99).Take(ctx)
			e.got("not found", err)
			n, err := gorm.G[User](e.db).Count(ctx, "id")
			e.got("count", err, n)
			var name string
			e.got("scan", gorm.G[User](e.db).Select("name").Where("id = ?", 2).Scan(ctx, &name), name)
			e.got("row", gorm.G[User](e.db).Raw("SELECT name FROM users WHERE id = ?", 1).Row(ctx).Scan(&name), name)
			joined, err := gorm.G[User](e.db).Joins(clause.Has("Company"), nil).Order("users.id").Find(ctx)
			e.got("joins", err, joined)
			e.got("batches", gorm.G[User](e.db).Order("id").FindInBatches(ctx, 2, func(us []User, batch int) error {
				e.note("batch %d: %d", batch, len(us))
				return nil
			}))
		})},
		{name: "generics-write", run: seeded(func(e *env) {
			ctx := e.t.Context()
			result := gorm.WithResult()
			c := Company{Name: "g"}
			e.got("create", gorm.G[Company](e.db, result).Create(ctx, &c), c, result.RowsAffected)
			n, err := gorm.G[Company](e.db).Where("id = ?", c.ID).Update(ctx, "name", "h")
			e.got("update", err, n)
			n, err = gorm.G[Company](e.db).Where("id = ?", c.ID).Updates(ctx, Company{Name: "i"})
			e.got("updates", err, n)
			e.got("exec", gorm.G[Company](e.db).Exec(ctx, "UPDATE companies SET name = ? WHERE id = ?", "j", c.ID))
			e.got("batches", gorm.G[Company](e.db).CreateInBatches(ctx, &[]Company{{Name: "x"}, {Name: "y"}}, 1))
			n, err = gorm.G[Company](e.db).Where("id = ?", c.ID).Delete(ctx)
			e.got("delete", err, n)
			e.got("set", gorm.G[Company](e.db).Set(clause.Assignment{Column: clause.Column{Name: "name"}, Value: "s"}).Create(ctx))
			read := gorm.WithResult()
			all, err := gorm.G[Company](e.db, read).Order("id").Find(ctx)
			e.got("find", err, all, read.RowsAffected)
		})},
		{name: "Scopes-Group-Having-Distinct", run: twice(func(e *env) {
			type row struct {
				CompanyID *uint
				N         int
			}
			var rows []row
			e.did("group", e.db.Model(&User{}).Select("company_id, count(*) AS n").Group("company_id").Having("count(*) > ?", 0).Order("company_id").Scan(&rows), rows)
			var us []User
			e.did("scopes", e.db.Scopes(func(tx *gorm.DB) *gorm.DB { return tx.Where("age > 35").Order("id") }).Find(&us), us)
			var ages []int
			e.did("distinct", e.db.Model(&User{}).Distinct().Order("age").Pluck("age", &ages), ages)
			e.did("locking", e.db.Clauses(clause.Locking{Strength: "SHARE", Options: "NOWAIT"}).Order("id").Find(&us), us)
			e.did("debug", e.db.Session(&gorm.Session{QueryFields: true}).Order("id").Find(&us), us)
		})},
		{name: "FindInBatches", run: seeded(func(e *env) {
			var us []User
			e.did("batches", e.db.Where("age > 0").FindInBatches(&us, 2, func(tx *gorm.DB, batch int) error {
				e.note("batch %d, rows affected %d, %s", batch, tx.RowsAffected, values([]any{us}))
				return nil
			}))
			e.did("stopped", e.db.FindInBatches(&us, 1, func(*gorm.DB, int) error { return errInner }))
		})},
	}
}

package sqltext

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

type gormCompany struct {
	ID       uint
	Name     string
	ParentID *uint
	Parent   *gormCompany
}

type gormUser struct {
	gorm.Model
	Name      string `gorm:"uniqueIndex"`
	Age       int
	CompanyID uint
	Company   gormCompany
	Orders    []gormOrder    `gorm:"foreignKey:UserID"`
	Languages []gormLanguage `gorm:"many2many:user_speaks"`
	Notes     []gormNote     `gorm:"polymorphic:Owner"`
	Meta      map[string]any `gorm:"serializer:json"`
}

type gormOrder struct {
	ID     uint
	UserID uint
	User   gormUser
	Total  float64
	At     time.Time
}

type gormLanguage struct {
	Code string `gorm:"primaryKey"`
	Name string
}

type gormNote struct {
	ID        uint
	OwnerID   uint
	OwnerType string
	Text      string
}

type gormPart struct {
	Region string `gorm:"primaryKey"`
	Number int    `gorm:"primaryKey"`
	Weight float64
}

func (gormUser) TableName() string     { return "users" }
func (gormCompany) TableName() string  { return "companies" }
func (gormOrder) TableName() string    { return "shop.orders" }
func (gormLanguage) TableName() string { return "languages" }
func (gormNote) TableName() string     { return "notes" }
func (gormPart) TableName() string     { return "Part Numbers" }

// dryRun is a session whose statements are built and noted, and not run.
func dryRun(t *testing.T, dialector gorm.Dialector, texts *[]string) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(dialector, &gorm.Config{
		DryRun: true, DisableAutomaticPing: true, Logger: logger.Discard, SkipDefaultTransaction: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	note := func(db *gorm.DB) {
		if text := db.Statement.SQL.String(); text != "" {
			*texts = append(*texts, text)
		}
	}
	cb := db.Callback()
	for _, err := range []error{
		cb.Query().After("gorm:query").Register("note", note), cb.Row().After("gorm:row").Register("note", note), cb.Raw().After("gorm:raw").Register("note", note),
		cb.Create().After("gorm:create").Register("note", note), cb.Update().After("gorm:update").Register("note", note), cb.Delete().After("gorm:delete").Register("note", note),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// program is a piece of a GORM program and what its statements must be taken for:
// describe's words, one line a statement.
type program struct {
	name string
	run  func(db *gorm.DB)
	want string
}

var gormPrograms = []program{
	{"first", func(db *gorm.DB) { db.First(&gormUser{}) }, "select <users limit ro cache"},
	{"first by key", func(db *gorm.DB) { db.First(&gormUser{}, 7) }, "select <users limit ro cache"},
	{"take by string key", func(db *gorm.DB) { db.Take(&gormLanguage{}, "code = ?", "de") }, "select <languages limit ro cache"},
	{"last", func(db *gorm.DB) { db.Last(&gormUser{}) }, "select <users limit ro cache"},
	{"find", func(db *gorm.DB) { db.Find(&[]gormUser{}) }, "select <users ro cache"},
	{"find in", func(db *gorm.DB) { db.Find(&[]gormUser{}, []int{1, 2, 3}) }, "select <users ro cache"},
	{"unscoped", func(db *gorm.DB) { db.Unscoped().Find(&[]gormUser{}) }, "select <users ro cache"},
	{"schema-qualified", func(db *gorm.DB) { db.Find(&[]gormOrder{}) }, "select <shop.orders ro cache"},
	{"odd table name", func(db *gorm.DB) { db.First(&gormPart{Region: "a", Number: 1}) }, "select <Part Numbers limit ro cache"},
	{"composite in", func(db *gorm.DB) { db.Where("(region, number) IN ?", [][]any{{"a", 1}, {"b", 2}}).Find(&[]gormPart{}) }, "select <Part Numbers ro cache"},
	{"struct and map conditions", func(db *gorm.DB) {
		db.Where(&gormUser{Name: "a", Age: 1}).Where(map[string]any{"age": []int{1, 2}, "name": nil}).Not("name = ?", "x").Or("age > ?", 3).Find(&[]gormUser{})
	}, "select <users ro cache"},
	{"grouped conditions", func(db *gorm.DB) {
		db.Where(db.Where("a = ?", 1).Or("b = ?", 2)).Where(db.Where("c = ?", 1)).Find(&[]gormUser{})
	}, "select <users ro cache"},
	{"named arguments", func(db *gorm.DB) {
		db.Where("name = @name OR age = @age", sql.Named("name", "a"), sql.Named("age", 2)).Find(&[]gormUser{})
	}, "select <users ro cache"},
	{"select and omit", func(db *gorm.DB) {
		db.Select("name", "COALESCE(age, ?) AS age", 1).Omit("meta").Find(&[]gormUser{})
	}, "select <users ro cache"},
	{"table alias", func(db *gorm.DB) { db.Table("users AS u").Where("u.age > ?", 1).Find(&[]gormUser{}) }, "select <users ro cache"},
	{"table alias unquoted", func(db *gorm.DB) {
		db.Table("users u").Joins("JOIN shop.orders o ON o.user_id = u.id").Find(&[]gormUser{})
	}, "select <users <shop.orders ro cache"},
	{"subquery as table", func(db *gorm.DB) { db.Table("(?) AS u", db.Model(&gormUser{}).Select("name")).Find(&[]gormUser{}) }, "select <users ro cache\nselect <users ro cache"},
	{"subquery as condition", func(db *gorm.DB) {
		db.Where("id IN (?)", db.Model(&gormOrder{}).Select("user_id").Where("total > ?", 1)).Find(&[]gormUser{})
	}, "select <shop.orders ro cache\nselect <users <shop.orders ro cache"},
	{"joins", func(db *gorm.DB) { db.Joins("Company").Joins("Company.Parent").Find(&[]gormUser{}) }, "select <users <companies ro cache"},
	{"inner join with condition", func(db *gorm.DB) { db.InnerJoins("Company", db.Where(&gormCompany{Name: "x"})).Find(&[]gormUser{}) }, "select <users <companies ro cache"},
	{"raw join", func(db *gorm.DB) {
		db.Joins("LEFT JOIN companies c ON c.id = users.company_id AND c.name = ?", "x").Find(&[]gormUser{})
	}, "select <users <companies ro cache"},
	{"group", func(db *gorm.DB) {
		db.Model(&gormUser{}).Select("age, count(*) AS n").Group("age").Having("count(*) > ?", 1).Order("n desc").Scan(&[]map[string]any{})
	}, "select <users aggregate ro cache"},
	{"distinct", func(db *gorm.DB) {
		db.Distinct("name", "age").Order("name, age desc").Limit(3).Offset(4).Find(&[]gormUser{})
	}, "select <users limit ro cache"},
	{"count", func(db *gorm.DB) { var n int64; db.Model(&gormUser{}).Count(&n) }, "select <users aggregate ro cache"},
	{"count distinct", func(db *gorm.DB) { var n int64; db.Model(&gormUser{}).Distinct("name").Count(&n) }, "select <users aggregate ro cache"},
	{"pluck", func(db *gorm.DB) { db.Model(&gormUser{}).Pluck("name", &[]string{}) }, "select <users ro cache"},
	{"order by clause", func(db *gorm.DB) {
		db.Clauses(clause.OrderBy{Expression: clause.Expr{SQL: "FIELD(id, ?)", Vars: []any{[]int{1, 2}}}}).Find(&[]gormUser{})
	}, "select <users !field"},
	{"locking", func(db *gorm.DB) {
		db.Clauses(clause.Locking{Strength: "UPDATE", Options: "SKIP LOCKED"}).First(&gormUser{})
	}, "select <users locking limit"},
	{"locking of a table", func(db *gorm.DB) {
		db.Clauses(clause.Locking{Strength: clause.LockingStrengthShare, Table: clause.Table{Name: clause.CurrentTable}}).Find(&[]gormUser{})
	}, "select <users locking"},
	{"hints in comments", func(db *gorm.DB) { db.Raw("/*+ SeqScan(users) */ SELECT * FROM users").Scan(&[]gormUser{}) }, "select <users ro cache"},
	{"create", func(db *gorm.DB) { db.Create(&gormUser{Name: "a"}) }, "insert >users maywrite"},
	{"create several", func(db *gorm.DB) { db.Create(&[]gormLanguage{{Code: "a"}, {Code: "b"}}) }, "insert >languages maywrite"},
	{"create from map", func(db *gorm.DB) { db.Model(&gormPart{}).Create([]map[string]any{{"Region": "a"}, {"Number": 2}}) }, "insert >Part Numbers maywrite"},
	{"create from expression", func(db *gorm.DB) {
		db.Model(&gormLanguage{}).Create(map[string]any{"Code": clause.Expr{SQL: "lower(?)", Vars: []any{"X"}}, "Name": gorm.Expr("(SELECT max(name) FROM companies)")})
	}, "insert <companies >languages maywrite"},
	{"upsert nothing", func(db *gorm.DB) { db.Clauses(clause.OnConflict{DoNothing: true}).Create(&gormLanguage{Code: "a"}) }, "insert >languages maywrite"},
	{"upsert all", func(db *gorm.DB) { db.Clauses(clause.OnConflict{UpdateAll: true}).Create(&gormUser{Name: "a"}) }, "insert >users maywrite"},
	{"upsert some", func(db *gorm.DB) {
		db.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "code"}}, Where: clause.Where{Exprs: []clause.Expression{clause.Gt{Column: "languages.name", Value: "x"}}}, DoUpdates: clause.Assignments(map[string]any{"name": gorm.Expr("excluded.name")})}).Create(&gormLanguage{Code: "a"})
	}, "insert >languages maywrite"},
	{"create with associations", func(db *gorm.DB) {
		db.Create(&gormUser{Name: "a", Company: gormCompany{Name: "c"}, Orders: []gormOrder{{Total: 1}}, Notes: []gormNote{{Text: "x"}}, Languages: []gormLanguage{{Code: "de"}}})
	}, "insert >companies maywrite\ninsert >shop.orders maywrite\ninsert >notes maywrite\ninsert >languages maywrite\ninsert >user_speaks maywrite\ninsert >users maywrite"},
	{"save", func(db *gorm.DB) { db.Save(&gormUser{Model: gorm.Model{ID: 1}, Name: "a"}) }, "update >users maywrite"},
	{"save slice", func(db *gorm.DB) { db.Save(&[]gormLanguage{{Code: "a"}}) }, "insert >languages maywrite"},
	{"update", func(db *gorm.DB) { db.Model(&gormUser{}).Where("id = ?", 1).Update("age", gorm.Expr("age + ?", 1)) }, "update >users maywrite"},
	{"updates", func(db *gorm.DB) {
		db.Model(&gormUser{Model: gorm.Model{ID: 1}}).Updates(map[string]any{"age": 1, "name": nil})
	}, "update >users maywrite"},
	{"update from subquery", func(db *gorm.DB) {
		db.Model(&gormUser{}).Where("1 = 1").Update("name", db.Model(&gormCompany{}).Select("name").Where("companies.id = users.company_id"))
	}, "select <companies ro cache\nupdate <companies >users maywrite"},
	{"update returning", func(db *gorm.DB) {
		db.Model(&[]gormUser{}).Clauses(clause.Returning{Columns: []clause.Column{{Name: "id"}}}).Where("age > ?", 1).UpdateColumn("age", 2)
	}, "update >users maywrite"},
	{"update from", func(db *gorm.DB) {
		db.Model(&gormUser{}).Clauses(clause.From{Joins: []clause.Join{{Table: clause.Table{Name: "companies"}, ON: clause.Where{Exprs: []clause.Expression{clause.Eq{Column: "a", Value: 1}}}}}}).Where("1 = 1").Update("age", 1)
	}, "update <users <companies >users maywrite"},
	{"soft delete", func(db *gorm.DB) { db.Delete(&gormUser{}, 1) }, "update >users maywrite"},
	{"delete", func(db *gorm.DB) { db.Delete(&gormPart{Region: "a", Number: 1}) }, "delete >Part Numbers maywrite"},
	{"delete in", func(db *gorm.DB) { db.Clauses(clause.Returning{}).Where("id IN ?", []int{1, 2}).Delete(&gormOrder{}) }, "delete >shop.orders maywrite"},
	{"delete unscoped", func(db *gorm.DB) { db.Unscoped().Where("age > ?", 1).Delete(&gormUser{}) }, "delete >users maywrite"},
	{"delete with subquery", func(db *gorm.DB) { db.Where("user_id IN (?)", db.Model(&gormUser{}).Select("id")).Delete(&gormOrder{}) }, "select <users ro cache\ndelete <users >shop.orders maywrite"},
	{"association find", func(db *gorm.DB) {
		_ = db.Model(&gormUser{Model: gorm.Model{ID: 1}}).Association("Languages").Find(&[]gormLanguage{})
	}, "select <languages <user_speaks ro cache"},
	{"association count", func(db *gorm.DB) { db.Model(&gormUser{Model: gorm.Model{ID: 1}}).Association("Notes").Count() }, "select <notes aggregate ro cache"},
	{"association clear", func(db *gorm.DB) { _ = db.Model(&gormUser{Model: gorm.Model{ID: 1}}).Association("Languages").Clear() }, "delete >user_speaks maywrite"},
	{"association clear has many", func(db *gorm.DB) { _ = db.Model(&gormUser{Model: gorm.Model{ID: 1}}).Association("Orders").Clear() }, "update >shop.orders maywrite"},
	{"raw scan", func(db *gorm.DB) { db.Raw("SELECT count(*) FROM users WHERE name = ?", "a").Scan(new(int)) }, "select <users aggregate ro cache"},
	{"raw rows", func(db *gorm.DB) { _, _ = db.Raw("WITH x AS (SELECT * FROM users) SELECT * FROM x").Rows() }, "select <users ro cache"},
	{"raw writing", func(db *gorm.DB) { db.Raw("UPDATE users SET age = ? RETURNING id", 1).Scan(new(int)) }, "update >users maywrite"},
	{"exec", func(db *gorm.DB) { db.Exec("DELETE FROM users WHERE id IN ?", []int{1, 2}) }, "delete >users maywrite"},
	{"exec ddl", func(db *gorm.DB) { db.Exec("DROP TABLE ?", clause.Table{Name: "users"}) }, "ddl >users maywrite"},
	{"savepoint", func(db *gorm.DB) { db.SavePoint("sp1"); db.RollbackTo("sp1") }, "savepoint\nrollback_to"},
	{"exists", func(db *gorm.DB) {
		db.Model(&gormUser{}).Select("EXISTS (?)", db.Model(&gormOrder{}).Select("1").Where("user_id = users.id")).Find(&[]bool{})
	}, "select <shop.orders ro cache\nselect <shop.orders <users ro cache"},
	{"generics", func(db *gorm.DB) {
		ctx := context.Background()
		_, _ = gorm.G[gormUser](db).Where("age > ?", 1).Find(ctx)
		_, _ = gorm.G[gormUser](db).Where("id = ?", 1).Update(ctx, "age", 2)
		_ = gorm.G[gormLanguage](db).Create(ctx, &gormLanguage{Code: "x"})
	}, "select <users ro cache\nupdate >users maywrite\ninsert >languages maywrite"},
}

// No statement that GORM builds is unknown, and each is taken for what it is.
func TestStatementsOfGORM(t *testing.T) {
	t.Parallel()
	for _, p := range gormPrograms {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var texts []string
			db := dryRun(t, postgres.New(postgres.Config{Conn: nowhere{}, WithoutReturning: false}), &texts)
			p.run(db)
			var got []string
			for _, text := range texts {
				got = append(got, describe(Parse(text)))
			}
			if g := strings.Join(got, "\n"); g != p.want {
				t.Errorf("%s\n got  %s\n want %s", strings.Join(texts, "\n"), g, p.want)
			}
		})
	}
}

// nowhere is a pool that fails if a dry run reaches it.
type nowhere struct{}

var errNowhere = fmt.Errorf("a dry run reached the database")

func (nowhere) PrepareContext(context.Context, string) (*sql.Stmt, error) { return nil, errNowhere }
func (nowhere) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	return nil, errNowhere
}
func (nowhere) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errNowhere
}
func (nowhere) QueryRowContext(context.Context, string, ...any) *sql.Row { return nil }

// What the drivers for SQLite and MySQL make of the same programs.
func TestStatementsOfOtherDialects(t *testing.T) {
	t.Parallel()
	checkDescribed(t, []described{
		// MySQL.
		{"SELECT * FROM `users` WHERE `users`.`id` = ? AND `users`.`deleted_at` IS NULL ORDER BY `users`.`id` LIMIT ?", "select <users limit ro cache"},
		{"SELECT `users`.`id`,`Company`.`id` AS `Company__id` FROM `users` LEFT JOIN `companies` `Company` ON `users`.`company_id` = `Company`.`id` WHERE `users`.`deleted_at` IS NULL", "select <users <companies ro cache"},
		{"SELECT * FROM `shop`.`orders` WHERE (`region`,`number`) IN ((?,?),(?,?))", "select <shop.orders ro cache"},
		{"SELECT count(*) FROM `users` WHERE `name` REGEXP ? AND `age` DIV ? > ? XOR `a` RLIKE ?", "select <users aggregate ro cache"},
		{"SELECT * FROM `users` USE INDEX (`idx_users_name`,`b`) WHERE age > ?", "select <users ro cache"},
		{"SELECT * FROM `users` FORCE INDEX FOR ORDER BY (`idx`) IGNORE INDEX (`x`) WHERE a = ?", "select <users ro cache"},
		{"SELECT * FROM `users` FOR UPDATE SKIP LOCKED", "select <users locking"},
		{"SELECT * FROM `users` LIMIT ?,?", "select <users limit ro cache"},
		{"SELECT STRAIGHT_JOIN * FROM a STRAIGHT_JOIN b", "select <a <b ro cache"},
		{"SELECT * FROM t WHERE MATCH (a, b) AGAINST (? IN BOOLEAN MODE)", "select <t !match"},
		{"SELECT GROUP_CONCAT(DISTINCT name ORDER BY name SEPARATOR ',') FROM t", "select <t aggregate !group_concat"},
		{"INSERT INTO `users` (`created_at`,`name`) VALUES (?,?),(?,?)", "insert >users maywrite"},
		{"INSERT INTO `languages` (`code`) VALUES (?) ON DUPLICATE KEY UPDATE `code`=`code`,`name`=VALUES(`name`)", "insert >languages maywrite"},
		{"INSERT IGNORE INTO `t` (`a`) VALUES (?) RETURNING `id`", "insert >t maywrite"},
		{"INSERT INTO `t` () VALUES ()", "insert >t maywrite"},
		{"UPDATE `users` SET `age`=age + ?,`updated_at`=? WHERE id = ? AND `users`.`deleted_at` IS NULL", "update >users maywrite"},
		{"UPDATE `users` INNER JOIN `companies` ON `users`.`company_id` = `companies`.`id` SET `age`=? WHERE `companies`.`name` = ?", "update >users >companies maywrite"},
		{"DELETE FROM `users` WHERE `users`.`id` IN (?,?) ORDER BY id LIMIT 1", "delete >users limit maywrite"},
		{"CREATE TABLE `users` (`id` bigint unsigned AUTO_INCREMENT,`name` longtext,PRIMARY KEY (`id`),INDEX `idx_users_deleted_at` (`deleted_at`))", "ddl >users maywrite"},
		{"CREATE TABLE `a` AS SELECT * FROM `b`", "ddl <b >a maywrite"},
		{"ALTER TABLE `users` MODIFY COLUMN `name` varchar(191)", "ddl >users maywrite"},
		{"CREATE FULLTEXT INDEX `i` ON `t`(`a`)", "ddl >t maywrite"},
		{"SELECT DATABASE()", "select unstable !database"},
		{"SELECT VERSION()", "select unstable ro"},
		{"SHOW TABLES", "show"},
		{"SET foreign_key_checks = 0", "set session"},
		{"SELECT count(*) FROM information_schema.tables WHERE table_schema = ? AND table_name = ? AND table_type = ?", "select <information_schema.tables system aggregate ro"},
		{"SELECT column_name, is_nullable = 'YES' FROM `INFORMATION_SCHEMA`.`COLUMNS` WHERE table_schema = ? ORDER BY ORDINAL_POSITION", "select <INFORMATION_SCHEMA.COLUMNS system ro"},

		// SQLite.
		{"SELECT * FROM `users` WHERE name GLOB ? AND `age` IS ? AND `a` IS NOT ? LIMIT 1", "select <users limit ro cache"},
		{"INSERT INTO `users` (`name`) VALUES (?) ON CONFLICT (`id`) DO UPDATE SET `name`=`excluded`.`name` RETURNING `id`", "insert >users maywrite"},
		{"INSERT OR REPLACE INTO `t` VALUES (?)", "insert >t maywrite"},
		{"INSERT INTO `t` SELECT * FROM `u` WHERE true ON CONFLICT DO NOTHING", "insert <u >t maywrite"},
		{"SELECT * FROM t INDEXED BY i WHERE a = ?", "select <t ro cache"},
		{"SELECT count(*) FROM sqlite_master WHERE type='table' AND name=?", "select <sqlite_master system aggregate ro"},
		{"SELECT * FROM pragma_table_info('t')", "select !pragma_table_info"},
		{"PRAGMA table_info(`t`)", "show session"},
		{"PRAGMA foreign_keys = ON", "set session"},
		{"CREATE TABLE `t` (`id` integer PRIMARY KEY AUTOINCREMENT,`name` text,CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `u`(`id`))", "ddl >t maywrite"},
		{"CREATE TABLE `t__temp` (`id` integer)", "ddl >t__temp maywrite"},
		{"INSERT INTO `t__temp`(`id`) SELECT `id` FROM `t`", "insert <t >t__temp maywrite"},
		{"ALTER TABLE `t__temp` RENAME TO `t`", "ddl >t__temp >t maywrite"},
		{"CREATE VIRTUAL TABLE t USING fts5(a)", "ddl >t maywrite"},
		{"SELECT datetime('now'), strftime('%Y', created) FROM t", "select <t unstable !datetime !strftime"},
		{"SELECT last_insert_rowid()", "select volatile unstable"},
		{"REPLACE INTO t VALUES (?)", "insert >t maywrite"},
		{"WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<?) SELECT x FROM c", "select ro"},
		{"BEGIN IMMEDIATE", "begin"},
		{"VACUUM", "maintenance"},
		{"ATTACH DATABASE ? AS other", "other session"},
	})
}

func TestStatementsOfTheMigrator(t *testing.T) {
	t.Parallel()
	var texts []string
	db := dryRun(t, postgres.New(postgres.Config{Conn: nowhere{}}), &texts)
	m := db.Migrator()
	for _, run := range []func() error{
		func() error { return m.CreateTable(&gormUser{}, &gormOrder{}, &gormPart{}) },
		func() error { return m.AddColumn(&gormUser{}, "Age") },
		func() error { return m.DropColumn(&gormUser{}, "age") },
		func() error { return m.RenameTable("users", "people") },
		func() error { return m.RenameColumn(&gormUser{}, "name", "title") },
		func() error { return m.CreateIndex(&gormUser{}, "Name") },
		func() error { return m.RenameIndex(&gormUser{}, "a", "b") },
		func() error { return m.DropIndex(&gormUser{}, "Name") },
		func() error { return m.CreateConstraint(&gormUser{}, "Company") },
		func() error { return m.DropConstraint(&gormUser{}, "Company") },
		func() error { return m.CreateView("v", gorm.ViewOption{Replace: true, Query: db.Model(&gormUser{})}) },
		func() error { return m.DropView("v") },
		func() error { return m.DropTable(&gormUser{}) },
	} {
		_ = run() // a dry run has no answers, which some of them miss
	}
	m.HasTable(&gormUser{})
	m.HasColumn(&gormUser{}, "name")
	m.HasIndex(&gormUser{}, "Name")
	m.HasConstraint(&gormUser{}, "Company")
	m.CurrentDatabase()
	var ops []Operation
	for _, text := range texts {
		st := Parse(text)
		if st.Operation != DDL && st.Operation != Select || st.Operation == Select && st.MayWrite() || st.Operation == DDL && len(st.Writes) == 0 && !st.Opaque {
			t.Errorf("%s\n is %s", text, describe(st))
		}
		ops = append(ops, st.Operation)
	}
	if len(texts) < 15 || !slices.Contains(ops, DDL) || !slices.Contains(ops, Select) {
		t.Errorf("only %d statements: %v", len(texts), ops)
	}
}

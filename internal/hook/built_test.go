package hook

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

type shelf struct {
	ID    int64
	Name  string
	Rank  int
	Books []volume
}

func (shelf) TableName() string { return "stock.shelves" }

type volume struct {
	ID        uint
	Title     string
	ShelfID   int64
	Shelf     *shelf
	Printed   time.Time
	DeletedAt gorm.DeletedAt
}

type leaf struct {
	Volume uint `gorm:"primaryKey"`
	Number int  `gorm:"primaryKey"`
	Text   string
}

// upper writes itself.
type upper string

func (u upper) GormValue(_ context.Context, _ *gorm.DB) clause.Expr {
	return clause.Expr{SQL: "upper(?)", Vars: []any{string(u)}}
}

// built makes dry runs whose queries are built by build.
func built(t *testing.T, build func(*gorm.DB)) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: &sql.DB{}}), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Callback().Query().Replace("gorm:query", build); err != nil {
		t.Fatal(err)
	}
	return db.Session(&gorm.Session{DryRun: true})
}

// remembering returns a db that builds by texts, and one that builds as GORM does.
func remembering(t *testing.T) (ours, gorms *gorm.DB, own *texts) {
	t.Helper()
	h := &Hub{}
	ours = built(t, h.texts.build)
	h.rememberTexts(ours)
	return ours, built(t, callbacks.BuildQuerySQL), &h.texts
}

// same fails unless both have built the same text, arguments and clauses, and met the
// same error.
func same(t *testing.T, what string, got, want *gorm.DB) {
	t.Helper()
	if got.Statement.SQL.String() != want.Statement.SQL.String() || !reflect.DeepEqual(got.Statement.Vars, want.Statement.Vars) {
		t.Errorf("%s\n built %s %v\n GORM  %s %v", what, got.Statement.SQL.String(), got.Statement.Vars, want.Statement.SQL.String(), want.Statement.Vars)
	}
	if !reflect.DeepEqual(got.Statement.Clauses, want.Statement.Clauses) && what != "Where with a query" { // which belongs to the db
		t.Errorf("%s\n leaves the clauses %+v\n GORM leaves       %+v", what, got.Statement.Clauses, want.Statement.Clauses)
	}
	if fmt.Sprint(got.Error) != fmt.Sprint(want.Error) {
		t.Errorf("%s\n fails with %v, in GORM with %v", what, got.Error, want.Error)
	}
}

// statements are run with other values each time. Those of one kind are remembered,
// and those that are not must be left to GORM.
var statements = []struct {
	name       string
	remembered bool
	run        func(db *gorm.DB, i int) *gorm.DB
}{
	{"First by key", true, func(db *gorm.DB, i int) *gorm.DB { return db.First(&volume{}, i) }},
	{"First by key, unscoped", true, func(db *gorm.DB, i int) *gorm.DB { return db.Unscoped().First(&volume{}, i) }},
	{"First by a condition", true, func(db *gorm.DB, i int) *gorm.DB { return db.First(&volume{}, "id = ?", i) }},
	{"First of a composite key", true, func(db *gorm.DB, i int) *gorm.DB { return db.First(&leaf{}, "volume = ? AND number = ?", i, i+1) }},
	{"First of a key of two that is set", false, func(db *gorm.DB, i int) *gorm.DB { return db.First(&leaf{Number: i + 1}) }},
	{"Last", true, func(db *gorm.DB, i int) *gorm.DB { return db.Last(&volume{}, i) }},
	{"Take", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Take(&volume{}) }},
	{"Find", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Find(&[]leaf{}) }},
	{"Find of pointers", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Find(&[]*leaf{}) }},
	{"Find in a schema", true, func(db *gorm.DB, i int) *gorm.DB { return db.Find(&[]shelf{}, "rank > ?", i) }},
	{"Find in another table", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Table("old_leaves").Find(&[]leaf{}) }},
	{"Find under an alias", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Table("leaves AS l").Find(&[]leaf{}) }},
	{"Find in another schema under that alias", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Table("old.leaves AS l").Find(&[]leaf{}) }},
	{"Find in a table that was set by hand", true, func(db *gorm.DB, _ int) *gorm.DB {
		tx := db.Limit(-1)
		tx.Statement.Table = "new_leaves"
		return tx.Find(&[]leaf{})
	}},
	{"Find in a query", true /* the query in it */, func(db *gorm.DB, _ int) *gorm.DB { return db.Table("(?) AS l", db.Model(&leaf{})).Find(&[]leaf{}) }},
	{"Find distinct", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Distinct().Find(&[]leaf{}) }},
	{"Find by keys", true, func(db *gorm.DB, i int) *gorm.DB { return db.Find(&[]volume{}, []int{i, i + 1}) }},
	{"Find by three keys", true, func(db *gorm.DB, i int) *gorm.DB { return db.Find(&[]volume{}, []int{i, i + 1, 7}) }},
	{"Find by many keys", false, func(db *gorm.DB, i int) *gorm.DB { return db.Find(&[]volume{}, make([]int, 20+i)) }},
	{"Where with a column", true, func(db *gorm.DB, i int) *gorm.DB { return db.Where("title", fmt.Sprint(i)).Find(&[]volume{}) }},
	{"Where with SQL", true, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where("title = ? AND printed < ?", fmt.Sprint(i), time.Unix(int64(i), 0)).Where("id > 3").Find(&[]volume{})
	}},
	{"Where in parentheses", true, func(db *gorm.DB, i int) *gorm.DB { return db.Where("id IN (?)", i).Find(&[]volume{}) }},
	{"Where with a list", false, func(db *gorm.DB, i int) *gorm.DB { return db.Where("id IN ?", []int{i, 1}).Find(&[]volume{}) }},
	{"Where with a struct", true, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where(&volume{Title: "a", ShelfID: int64(i) + 1}).Find(&[]volume{})
	}},
	{"Where with a map", true, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where(map[string]any{"title": "a", "shelf_id": i}).Find(&[]volume{})
	}},
	{"Where with NULL", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Where(map[string]any{"title": nil}).Find(&[]volume{}) }},
	{"Where with NULL in SQL", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Where("title = ?", nil).Find(&[]volume{}) }},
	{"Where with bytes", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Where("title = ?", []byte("x")).Find(&[]volume{}) }},
	{"Where with a Valuer", false, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where("title = ?", sql.NullInt64{Int64: int64(i)}).Find(&[]volume{})
	}},
	{"Where with a NULL string", true, func(db *gorm.DB, _ int) *gorm.DB {
		return db.Where(map[string]any{"title": sql.NullString{}}).Find(&[]volume{})
	}},
	{"Where with a string that may be NULL", false, func(db *gorm.DB, _ int) *gorm.DB {
		return db.Where(map[string]any{"title": sql.NullString{String: "a", Valid: true}}).Find(&[]volume{})
	}},
	{"Where with an expression", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Where("title = ?", upper("x")).Find(&[]volume{}) }},
	{"Where with a query", false, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where("shelf_id IN (?)", db.Model(&shelf{}).Select("id").Where("rank = ?", i)).Find(&[]volume{})
	}},
	{"Where with names", false, func(db *gorm.DB, i int) *gorm.DB { return db.Where("id = @id", sql.Named("id", i)).Find(&[]volume{}) }},
	{"Where of a group", true, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where(db.Where("id > ?", i).Where("id < ?", i+9)).Where("title <> ?", "x").Find(&[]volume{})
	}},
	{"Or", false, func(db *gorm.DB, i int) *gorm.DB { return db.Where("id = ?", i).Or("id = ?", i+1).Find(&[]volume{}) }},
	{"Or first", false, func(db *gorm.DB, i int) *gorm.DB { return db.Or("id = ?", i).Where("id = ?", i+1).Find(&[]volume{}) }},
	{"Not", false, func(db *gorm.DB, i int) *gorm.DB { return db.Not("id = ?", i).Find(&[]volume{}) }},
	{"Order", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Order("title desc, id").Find(&[]leaf{}) }},
	{"Order by a column", true, func(db *gorm.DB, _ int) *gorm.DB {
		return db.Order(clause.OrderByColumn{Column: clause.Column{Name: "text"}}).Find(&[]leaf{})
	}},
	{"Order by a column, descending", true, func(db *gorm.DB, _ int) *gorm.DB {
		return db.Order(clause.OrderByColumn{Column: clause.Column{Name: "text"}, Desc: true}).Find(&[]leaf{})
	}},
	{"Order by an expression", false, func(db *gorm.DB, _ int) *gorm.DB {
		return db.Clauses(clause.OrderBy{Expression: clause.Expr{SQL: "random()"}}).Find(&[]leaf{})
	}},
	{"Limit", true, func(db *gorm.DB, i int) *gorm.DB { return db.Limit(i + 1).Find(&[]leaf{}) }},
	{"Offset", true, func(db *gorm.DB, i int) *gorm.DB { return db.Offset(i + 1).Find(&[]leaf{}) }},
	{"Limit and Offset", true, func(db *gorm.DB, i int) *gorm.DB { return db.Limit(i + 1).Offset(2).Find(&[]leaf{}) }},
	{"no Limit", true, func(db *gorm.DB, _ int) *gorm.DB { return db.Limit(3).Limit(-1).Find(&[]leaf{}) }},
	{"Select", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Select("text").Find(&[]leaf{}) }},
	{"Omit", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Omit("text").Find(&[]leaf{}) }},
	{"Distinct of a column", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Distinct("text").Find(&[]leaf{}) }},
	{"Group", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Group("text").Having("count(*) > ?", 1).Find(&[]leaf{}) }},
	{"a lock", false, func(db *gorm.DB, _ int) *gorm.DB {
		return db.Clauses(clause.Locking{Strength: "UPDATE"}).Find(&[]leaf{})
	}},
	{"no Joins", true, func(db *gorm.DB, i int) *gorm.DB { return db.Find(&[]volume{}, "volumes.id = ?", i) }},
	{"Joins", false, func(db *gorm.DB, i int) *gorm.DB { return db.Joins("Shelf").Find(&[]volume{}, "volumes.id = ?", i) }},
	{"a smaller struct", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Model(&volume{}).Find(&[]struct{ Title string }{}) }},
	{"maps", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Model(&volume{}).Find(&[]map[string]any{}) }},
	{"a model with its key", false, func(db *gorm.DB, i int) *gorm.DB { return db.First(&volume{ID: uint(i) + 1}) }},
	{"Count", false, func(db *gorm.DB, i int) *gorm.DB {
		var n int64
		return db.Model(&volume{}).Where("id > ?", i).Count(&n)
	}},
	{"Raw", false, func(db *gorm.DB, i int) *gorm.DB { return db.Raw("SELECT ?", i).Find(&[]leaf{}) }},
	{"a mode of pgx", false, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where("? = ?", pgx.QueryExecModeSimpleProtocol, i).Find(&[]leaf{})
	}},
	{"all fields by name", false, func(db *gorm.DB, _ int) *gorm.DB { return db.Session(&gorm.Session{QueryFields: true}).Find(&[]leaf{}) }},
	{"a FROM of its own", false, func(db *gorm.DB, _ int) *gorm.DB {
		return db.Clauses(clause.From{Tables: []clause.Table{{Name: "old_leaves"}}}).Find(&[]leaf{})
	}},
	{"another order of clauses", false, func(db *gorm.DB, _ int) *gorm.DB {
		tx := db.Order("text")
		tx.Statement.BuildClauses = []string{"SELECT", "FROM", "ORDER BY"}
		return tx.Find(&[]leaf{})
	}},
	{"a chain that is used again", true /* as it is at first */, func(db *gorm.DB, _ int) *gorm.DB {
		tx := db.Where("volume = 1").Find(&[]leaf{})
		tx.Statement.SQL.Reset()
		return tx.Where("number = 2").Find(&[]leaf{})
	}},
	{"a condition at another clause's place", true, func(db *gorm.DB, i int) *gorm.DB {
		tx := db.Where("volume = ?", i)
		tx.Statement.Clauses["FOR"] = tx.Statement.Clauses["WHERE"]
		delete(tx.Statement.Clauses, "WHERE")
		return tx.Find(&[]volume{})
	}},
	{"a long condition", false, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where(fmt.Sprintf("text <> '%300d' AND volume = ?", 1), i).Find(&[]leaf{})
	}},
	{"many arguments", false, func(db *gorm.DB, i int) *gorm.DB {
		return db.Where("volume > ? AND volume > ? AND volume > ? AND volume > ? AND volume > ? AND volume > ? AND volume > ? AND volume > ? AND volume > ?", 1, 2, 3, 4, 5, 6, 7, 8, i).Find(&[]leaf{})
	}},
}

func TestTextsAreThoseThatGORMBuilds(t *testing.T) {
	t.Parallel()
	ours, gorms, _ := remembering(t)
	for i := range 4 { // from the third on by what is remembered
		for _, s := range statements {
			same(t, s.name, s.run(ours, i), s.run(gorms, i))
		}
	}
}

func TestTextsAreRememberedOnceAShapeHasComeTwice(t *testing.T) {
	t.Parallel()
	for _, s := range statements {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			ours, _, own := remembering(t)
			var kept [3]int
			for i := range kept {
				s.run(ours, i)
				for j := range own.slots {
					if own.slots[j].Load() != nil {
						kept[i]++
					}
				}
			}
			want := [3]int{}
			if s.remembered {
				want = [3]int{0, 1, 1}
			}
			if kept != want {
				t.Fatalf("remembers %v texts after one, two and three runs, want %v", kept, want)
			}
		})
	}
}

// TestRandomStatementsAreBuiltAsGORMBuildsThem mixes conditions, so that shapes which
// differ in little follow one another.
func TestRandomStatementsAreBuiltAsGORMBuildsThem(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	ours, gorms, own := remembering(t)
	for range 6000 {
		list := conditions(r, 2)
		run := func(db *gorm.DB) *gorm.DB {
			if r := rand.New(rand.NewPCG(uint64(len(list)), 1)); r.IntN(2) == 0 {
				db = db.Unscoped()
			}
			return db.Clauses(clause.Where{Exprs: list}).Find(&[]volume{})
		}
		same(t, fmt.Sprintf("%#v", list), run(ours), run(gorms))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	n := 0
	for i := range own.slots {
		if own.slots[i].Load() != nil {
			n++
		}
	}
	if n == 0 {
		t.Fatal("nothing was remembered, so that nothing was tested")
	}
}

func conditions(r *rand.Rand, depth int) []clause.Expression {
	list := make([]clause.Expression, 1+r.IntN(2))
	for i := range list {
		list[i] = condition(r, depth)
	}
	return list
}

func condition(r *rand.Rand, depth int) clause.Expression {
	columns := []any{"id", "title", "volumes.id", clause.PrimaryColumn, clause.Column{Table: "v", Name: "id"}, clause.Column{Name: "id", Raw: true}, clause.Column{Name: "id"}, clause.Column{Name: "id", Alias: "d"}}
	values := []any{1, "1", nil, int64(2), 2.5, true, time.Unix(3, 0), []byte("x"), []int{1, 2}, sql.NullString{}, upper("x"), gorm.Expr("now()")}
	column, value := columns[r.IntN(len(columns))], values[r.IntN(len(values))]
	switch r.IntN(12) {
	case 0:
		return clause.Eq{Column: column, Value: value}
	case 1:
		return clause.Neq{Column: column, Value: value}
	case 2:
		return clause.Gt{Column: column, Value: value}
	case 3:
		return clause.Gte{Column: column, Value: value}
	case 4:
		return clause.Lt{Column: column, Value: value}
	case 5:
		return clause.Lte{Column: column, Value: value}
	case 6:
		return clause.Like{Column: column, Value: value}
	case 7:
		return clause.IN{Column: column, Values: values[:r.IntN(3)]}
	case 8:
		return clause.Expr{SQL: []string{"a = ?", "a = (?)", "a = ? OR b = 1", "?", "a"}[r.IntN(5)], Vars: []any{value}[:r.IntN(2)], WithoutParentheses: r.IntN(4) == 0}
	case 9:
		return clause.Or(condition(r, 0))
	case 10:
		return clause.Not(condition(r, 0))
	}
	if depth == 0 {
		return clause.Eq{Column: "id", Value: 1}
	}
	return clause.And(conditions(r, depth-1)...)
}

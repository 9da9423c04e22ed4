package limithook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/testbed"
)

type owner struct {
	ID   uint
	Name string `gorm:"uniqueIndex"`
	Pets []pet
}

type pet struct {
	ID      uint
	Name    string
	OwnerID uint
}

// bench is a database with a log of all statements.
type bench struct {
	node  *testbed.Node
	name  string
	marks int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	testbed.RequirePostgres(t)
	cluster := testbed.NewCluster(t, testbed.ClusterConfig{Settings: map[string]string{"log_statement": "all"}})
	b := &bench{node: cluster.Primary(), name: cluster.NewDatabase(t)}
	if err := b.open(t, nil).AutoMigrate(&owner{}, &pet{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// open gives a GORM of its own.
func (b *bench) open(t *testing.T, change func(*gorm.Config)) *gorm.DB {
	t.Helper()
	c := &gorm.Config{Logger: logger.Discard}
	if change != nil {
		change(c)
	}
	db, err := gorm.Open(postgres.Open(b.node.DSN(b.name)), c)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return db
}

func (b *bench) limited(t *testing.T, cfg Config, change func(*gorm.Config)) (*gorm.DB, *Limits) {
	t.Helper()
	db := b.open(t, change)
	return db, use(t, db, cfg)
}

func use(t *testing.T, db *gorm.DB, cfg Config) *Limits {
	t.Helper()
	p := New(cfg)
	if err := db.Use(p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// sent returns the statements that the server logged while f ran.
func (b *bench) sent(t *testing.T, f func()) (statements []string) {
	t.Helper()
	b.marks++
	mark := fmt.Sprintf("SELECT 'mark %d'", b.marks)
	if err := b.node.Exec(t.Context(), b.name, mark); err != nil {
		t.Fatal(err)
	}
	f()
	_, after, ok := strings.Cut(b.node.Log(), mark)
	if !ok {
		t.Fatalf("the log does not reach back to %q:\n%s", mark, b.node.Log())
	}
	for _, line := range strings.Split(after, "\n") {
		if _, text, ok := strings.Cut(line, "LOG:  "); ok && !strings.HasPrefix(text, "connection") {
			_, text, _ = strings.Cut(text, ": ")
			statements = append(statements, text)
		}
	}
	return statements
}

func exhaust(t *testing.T, p *Limits, user string) context.Context {
	t.Helper()
	ctx := as(user)
	for i := 0; p.Limiter().Allow(ctx) == nil; i++ {
		if i > 10_000 {
			t.Fatal("never refused")
		}
	}
	return ctx
}

func wantLimited(t *testing.T, what string, err error) {
	t.Helper()
	var e *Error
	if !errors.Is(err, ErrLimited) || !errors.As(err, &e) || e.Scope != ScopeUser || e.RetryAfter <= 0 {
		t.Errorf("%s: %v, want a refusal", what, err)
	}
}

// TestStatements shares one server whose log it reads, so its parts run one
// after the other.
func TestStatements(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, test := range map[string]func(*testing.T, *bench){
		"refused before anything is sent":          refusedBeforeAnythingIsSent,
		"G15 refused Row and Rows do not panic":    refusedRowAndRows,
		"a refusal leaves the transaction usable":  refusalInTransaction,
		"each statement is charged once":           eachChargedOnce,
		"cost, bypass, anonymous":                  costBypassAnonymous,
		"a refresh is charged to the global limit": refreshIsCharged,
		"statements answered elsewhere":            answeredElsewhere,
		"decision, wait and numbers can be read":   whatCanBeRead,
		"L05 nothing is left dangling":             nothingDangles,
		"transactions can be ended by hand":        endsTransactions,
		"used once, closed, disabled, invalid":     lifeOfThePlugin,
		"L05 limits that are changed live":         changedUnderStatements,
		"a rule for each table":                    rulesByTable,
		"shadow mode refuses nothing":              inShadow,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

func refusedBeforeAnythingIsSent(t *testing.T, b *bench) {
	for name, change := range map[string]func(*gorm.Config){
		"default":      nil,
		"skip default": func(c *gorm.Config) { c.SkipDefaultTransaction = true },
		"prepared":     func(c *gorm.Config) { c.PrepareStmt = true },
		"translated":   func(c *gorm.Config) { c.TranslateError = true },
	} {
		db, p := b.limited(t, Config{PerUser: PerMinute(1)}, change)
		db = db.WithContext(exhaust(t, p, "a"))
		var o owner
		statements := b.sent(t, func() {
			for what, f := range map[string]func() error{
				"create":      func() error { return db.Create(&owner{Name: "x"}).Error },
				"nested":      func() error { return db.Create(&owner{Name: "x", Pets: []pet{{Name: "p"}}}).Error },
				"save":        func() error { return db.Save(&owner{ID: 1, Name: "x"}).Error },
				"update":      func() error { return db.Model(&owner{}).Where("id = 1").Update("name", "x").Error },
				"delete":      func() error { return db.Delete(&owner{}, 1).Error },
				"association": func() error { return db.Model(&owner{ID: 1}).Association("Pets").Append(&pet{Name: "p"}) },
				"exec":        func() error { return db.Exec("UPDATE owners SET name = 'x'").Error },
				"first":       func() error { return db.First(&o).Error },
				"find":        func() error { return db.Find(&[]owner{}).Error },
				"count":       func() error { var n int64; return db.Model(&owner{}).Count(&n).Error },
				"scan":        func() error { var n int64; return db.Raw("SELECT 1").Scan(&n).Error },
				"generics":    func() error { _, err := gorm.G[owner](db).First(db.Statement.Context); return err },
			} {
				wantLimited(t, name+": "+what, f())
			}
		})
		if len(statements) > 0 {
			t.Errorf("%s: sent %q", name, statements)
		}
		// GORM opens this transaction for the batches, not for a statement.
		wantLimited(t, name+": batches", db.CreateInBatches([]owner{{Name: "x"}, {Name: "y"}}, 1).Error)
		if st := p.Stats(); st.RefusedUser < 12 {
			t.Errorf("%+v", st)
		}
	}
}

func refusedRowAndRows(t *testing.T, b *bench) {
	for name, change := range map[string]func(*gorm.Config){"default": nil, "prepared": func(c *gorm.Config) { c.PrepareStmt = true }} {
		for _, counted := range []Counted{DatabaseStatements, AllStatements} {
			db, p := b.limited(t, Config{PerUser: PerMinute(1), Count: counted}, change)
			db = db.WithContext(exhaust(t, p, "a"))
			var n int
			wantLimited(t, name+": Row", db.Raw("SELECT 1").Row().Scan(&n))
			wantLimited(t, name+": Row.Err", db.Model(&owner{}).Select("id").Row().Err())
			rows, err := db.Raw("SELECT 1").Rows()
			if rows != nil {
				t.Errorf("%s: rows of a refused statement", name)
				_ = rows.Close()
			}
			wantLimited(t, name+": Rows", err)
		}
	}
}

func refusalInTransaction(t *testing.T, b *bench) {
	db, _ := b.limited(t, Config{PerUser: PerMinute(3)}, nil)
	t.Run("rolled back by the caller", func(t *testing.T) {
		tx := db.WithContext(as("a")).Begin()
		if err := tx.Create(&owner{Name: "gone"}).Error; err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_ = tx.Find(&[]owner{}).Error
		}
		statements := b.sent(t, func() {
			wantLimited(t, "insert", tx.Session(&gorm.Session{NewDB: true}).Create(&owner{Name: "never"}).Error)
			if err := tx.Rollback().Error; err != nil {
				t.Error(err)
			}
		})
		if len(statements) != 1 || !strings.EqualFold(statements[0], "rollback") {
			t.Errorf("sent %q, want a roll-back alone", statements)
		}
	})
	t.Run("by Transaction", func(t *testing.T) {
		err := db.WithContext(as("b")).Transaction(func(tx *gorm.DB) error {
			for range 4 {
				if err := tx.Create(&owner{Name: "gone"}).Error; err != nil {
					return err
				}
				if err := tx.Delete(&owner{}, "name = 'gone'").Error; err != nil {
					return err
				}
			}
			return nil
		})
		wantLimited(t, "transaction", err)
	})
	t.Run("in a savepoint, and the rest is kept", func(t *testing.T) {
		ctx := as("c")
		var statements []string
		err := db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			for i := range 3 {
				if err := tx.Create(&owner{Name: fmt.Sprint("kept ", i)}).Error; err != nil {
					return err
				}
			}
			statements = b.sent(t, func() {
				wantLimited(t, "inner", tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&owner{Name: "inner"}).Error }))
				for _, text := range []string{"SAVEPOINT s", "ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s", "SET LOCAL work_mem = '8MB'", "-- a comment\nsavepoint z"} {
					if err := tx.Exec(text).Error; err != nil {
						t.Errorf("%s: %v", text, err)
					}
				}
				wantLimited(t, "disguised", tx.Exec("SAVEPOINT s; DELETE FROM owners").Error)
			})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if got := strings.ToLower(strings.Join(statements, "; ")); !strings.HasPrefix(got, "savepoint sp") || !strings.Contains(got, "rollback to savepoint sp") || strings.Contains(got, "owners") {
			t.Errorf("sent %q", statements)
		}
		var n int64
		if err := db.WithContext(Bypass(ctx)).Model(&owner{}).Where("name like 'kept %'").Count(&n).Error; err != nil || n != 3 {
			t.Errorf("%d rows kept, %v", n, err)
		}
		if err := db.WithContext(Bypass(ctx)).Where("true").Delete(&owner{}).Error; err != nil {
			t.Error(err)
		}
	})
}

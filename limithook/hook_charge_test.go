package limithook

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func eachChargedOnce(t *testing.T, b *bench) {
	for name, change := range map[string]func(*gorm.Config){"default": nil, "prepared": func(c *gorm.Config) { c.PrepareStmt = true }} {
		for _, counted := range []Counted{DatabaseStatements, AllStatements} {
			db, p := b.limited(t, Config{PerUser: PerMinute(1000), Count: counted}, change)
			db = db.WithContext(as("a"))
			var n int64
			pool := uint64(1)
			if db.PrepareStmt {
				pool = 0 // GORM's store prepares, and what is run then is not seen
			}
			o := owner{Name: "once", Pets: []pet{{Name: "p"}, {Name: "q"}}}
			for _, step := range []struct {
				what string
				cost uint64
				f    func() error
			}{
				{"create with an association", 2, func() error { return db.Create(&o).Error }},
				{"first", 1, func() error { return db.First(&owner{}).Error }},
				{"preload", 2, func() error { return db.Preload("Pets").Find(&[]owner{}).Error }},
				{"preload of no parent", 1, func() error { return db.Preload("Pets").Find(&[]owner{}, "false").Error }},
				{"association find", 1, func() error { return db.Model(&o).Association("Pets").Find(&[]pet{}) }},
				{"association count", 1, func() error { n = db.Model(&o).Association("Pets").Count(); return nil }},
				{"update with its association", 2, func() error { return db.Model(&o).Update("name", "twice").Error }},
				{"exec", 1, func() error { return db.Exec("UPDATE pets SET name = 'r'").Error }},
				{"scan", 1, func() error { return db.Raw("SELECT 1").Scan(&n).Error }},
				{"row", 1, func() error { return db.Raw("SELECT 1").Row().Scan(&n) }},
				{"rows", 1, func() error {
					rows, err := db.Raw("SELECT 1").Rows()
					if err != nil {
						return err
					}
					defer rows.Close()
					return rows.Err()
				}},
				{"batches", 3, func() error {
					return db.CreateInBatches([]owner{{Name: "1"}, {Name: "2"}, {Name: "3"}}, 1).Error
				}},
				{"find in batches", 3, func() error {
					return db.FindInBatches(&[]owner{}, 2, func(*gorm.DB, int) error { return nil }).Error
				}},
				{"first or create", 2, func() error { return db.FirstOrCreate(&owner{}, owner{Name: "new"}).Error }},
				{"subquery", 1, func() error {
					return db.Where("owner_id IN (?)", db.Model(&owner{}).Select("id")).Find(&[]pet{}).Error
				}},
				{"transaction", 2, func() error {
					return db.Transaction(func(tx *gorm.DB) error {
						if err := tx.First(&owner{}).Error; err != nil {
							return err
						}
						return tx.Transaction(func(tx *gorm.DB) error { return tx.Model(&owner{}).Where("false").Update("name", "").Error })
					})
				}},
				{"dry run", 0, func() error { return db.Session(&gorm.Session{DryRun: true}).Create(&owner{}).Error }},
				{"to sql", 0, func() error {
					_ = db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Find(&[]owner{}) })
					return nil
				}},
				{"the pool by hand", pool, func() error {
					return db.Statement.ConnPool.QueryRowContext(db.Statement.Context, "SELECT 1").Scan(&n)
				}},
				{"delete", 1, func() error { return db.Where("true").Delete(&pet{}).Error }},
				{"raw delete with rows", 1, func() error { return db.Raw("DELETE FROM owners RETURNING id").Scan(&[]int{}).Error }},
			} {
				before := p.Stats().Admitted
				if err := step.f(); err != nil {
					t.Errorf("%s: %v", step.what, err)
				}
				if got := p.Stats().Admitted - before; got != step.cost {
					t.Errorf("%s, %v, %s: charged %d, want %d", name, counted, step.what, got, step.cost)
				}
			}
		}
	}
}

func costBypassAnonymous(t *testing.T, b *bench) {
	db, p := b.limited(t, Config{
		PerUser: PerMinute(10), Global: PerMinute(30), Anonymous: "guest",
		Cost: func(_ context.Context, st Statement) int {
			switch {
			case strings.Contains(st.SQL, "free"):
				return 0
			case st.Write && st.Table == "pets":
				return 4
			case strings.Contains(st.SQL, "dear"):
				return 11
			}
			return 1
		},
	}, nil)
	remaining := func(user string) int {
		t.Helper()
		d, err := p.Limiter().Info(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		return d.Remaining
	}
	a := db.WithContext(as("a"))
	for _, f := range []func() error{
		func() error { return a.Exec("SELECT 'free'").Error },
		func() error { return a.Find(&[]owner{}, "name <> 'free'").Error },
		func() error { return a.Where("false").Delete(&pet{}).Error },
		func() error { return a.First(&[]owner{}).Error },
	} {
		if err := f(); err != nil && !errors.Is(err, gorm.ErrRecordNotFound) {
			t.Error(err)
		}
	}
	if got := remaining("a"); got != 10-4-1 {
		t.Errorf("%d remaining, want 5", got)
	}
	var n string
	if err := a.Raw("SELECT 'dear'").Scan(&n).Error; !errors.Is(err, ErrCost) || errors.Is(err, ErrLimited) {
		t.Errorf("a statement above the limit: %v", err)
	}
	if err := db.WithContext(Bypass(as("a"))).Find(&[]owner{}).Error; err != nil || remaining("a") != 5 || p.Stats().Bypassed != 1 {
		t.Errorf("bypass: %v, %d remaining, %+v", err, remaining("a"), p.Stats())
	}
	if err := db.Find(&[]owner{}).Error; err != nil || remaining("") != 9 {
		t.Errorf("anonymous: %v, %d remaining", err, remaining(""))
	}
}

// cache is a server of the hook layer that answers without a database, or by a
// statement of its own.
type cache struct {
	from  *sql.DB // answers from here, uncharged
	quiet bool    // forks for the caller, else for itself
}

func (c *cache) Serves(*hook.Record) bool { return true }

func (c *cache) Serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	if c.from != nil {
		r.Outcome = hook.L1
		return c.from.QueryContext(ctx, r.SQL, r.Args...)
	}
	f := r.Fork(context.WithoutCancel(ctx))
	f.Quiet = c.quiet
	rows, err := f.Next(f.Context)
	f.Finish(0, err)
	return rows, err
}

func (b *bench) serve(t *testing.T, db *gorm.DB, c *cache) {
	t.Helper()
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	remove, err := hub.Register(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
}

func charged(t *testing.T, p *Limits, user string) [2]int {
	t.Helper()
	u, err := p.Limiter().Info(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.Limiter().Info(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return [2]int{u.Limit - u.Remaining, g.Limit - g.Remaining}
}

func refreshIsCharged(t *testing.T, b *bench) {
	for _, c := range []struct {
		counted Counted
		quiet   bool
		want    [2]int // of user and all
	}{
		{DatabaseStatements, false, [2]int{0, 1}},
		{DatabaseStatements, true, [2]int{1, 1}},
		{AllStatements, false, [2]int{1, 2}}, // the caller's statement and the refresh
		{AllStatements, true, [2]int{1, 1}},
	} {
		db, p := b.limited(t, Config{PerUser: PerMinute(10), Global: PerMinute(100), Anonymous: "guest", Count: c.counted}, nil)
		b.serve(t, db, &cache{quiet: c.quiet})
		if err := db.WithContext(as("a")).Find(&[]owner{}).Error; err != nil {
			t.Error(err)
		}
		l := p.Limiter()
		var all outcome
		l.memory.run(l.terms.Load(), everybody, nil, 1, false, &all)
		got := [2]int{charged(t, p, "a")[0], 100 - all.remaining}
		if got != c.want {
			t.Errorf("%v, quiet %v: charged %v, want %v", c.counted, c.quiet, got, c.want)
		}
		if got := charged(t, p, "")[0]; got != 0 {
			t.Errorf("the anonymous are charged %d for a refresh", got)
		}
	}
}

func answeredElsewhere(t *testing.T, b *bench) {
	for counted, want := range map[Counted]int{DatabaseStatements: 0, AllStatements: 1} {
		db, p := b.limited(t, Config{PerUser: PerMinute(10), Global: PerMinute(100), Count: counted}, nil)
		pool, err := b.open(t, nil).DB()
		if err != nil {
			t.Fatal(err)
		}
		b.serve(t, db, &cache{from: pool})
		if err := db.WithContext(as("a")).Find(&[]owner{}).Error; err != nil {
			t.Error(err)
		}
		if got := charged(t, p, "a"); got != [2]int{want, want} {
			t.Errorf("%v: charged %v for an answer of the cache, want %d", counted, got, want)
		}
	}
}

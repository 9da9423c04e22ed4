package limithook

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
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
		"used once, closed, disabled, invalid":     lifeOfThePlugin,
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
		g, err := p.Limiter().store.peek(t.Context(), everybody)
		if err != nil {
			t.Fatal(err)
		}
		got := [2]int{charged(t, p, "a")[0], 100 - g.global.remaining}
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

// watcher keeps what is told of the records.
type watcher struct{ seen []seen }

type seen struct {
	Outcome          hook.Outcome
	Err              error
	Waited, Duration time.Duration
}

func (w *watcher) Observe(_ context.Context, r *hook.Record) {
	w.seen = append(w.seen, seen{r.Outcome, r.Err, r.Waited, r.Duration})
}

func whatCanBeRead(t *testing.T, b *bench) {
	testbed.RequireRedis(t)
	server := testbed.NewRedis(t, testbed.RedisConfig{})
	const timeout = 500 * time.Millisecond
	db, p := b.limited(t, Config{PerUser: PerMinute(2), Redis: client(t, server.Addr()), Timeout: timeout, Lease: Lease{Max: 1}, Instances: 2}, nil)
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{}
	remove, err := hub.Register(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	ctx, s, _ := scope.Begin(as("a"), "test")
	if d, ok := LastDecision(s); ok {
		t.Errorf("before any statement: %+v", d)
	}
	for i, want := range []int{1, 0, 0} {
		err := db.WithContext(ctx).Find(&[]owner{}).Error
		d, ok := LastDecision(s)
		if !ok || d.Allowed != (i < 2) || d.Limit != 2 || d.Remaining != want || d.Allowed != (err == nil) {
			t.Errorf("after statement %d: %+v, %v; %v", i, d, ok, err)
		}
	}
	if r := w.seen[2]; r.Outcome != hook.Refused || !errors.Is(r.Err, ErrLimited) {
		t.Errorf("the refused record: %+v", r)
	}
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]func() error{
		"read":  func() error { return db.WithContext(as("b")).Find(&[]owner{}).Error },
		"write": func() error { return db.WithContext(as("c")).Create(&owner{Name: "waited"}).Error },
	} {
		begun := time.Now()
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		r := w.seen[len(w.seen)-1]
		if took := time.Since(begun); took < timeout {
			t.Errorf("%s took %v", what, took)
		}
		if r.Waited < timeout || r.Waited > r.Duration {
			t.Errorf("%s: waited %v of %v", what, r.Waited, r.Duration)
		}
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	numbers := map[string]float64{}
	hub.Meter(func(m *hook.Metric, v float64, labels ...string) {
		if len(labels) != len(m.Labels) {
			t.Errorf("%s has %d labels, %d values", m.Name, len(m.Labels), len(labels))
		}
		numbers[m.Name+strings.Join(labels, ",")] += v
	})
	st := p.Stats()
	for name, want := range map[string]uint64{
		"limit_admitted_total": st.Admitted, "limit_refused_totaluser": 1, "limit_redis_errors_total": st.RedisErrors, "limit_degraded_total": 2,
	} {
		if numbers[name] != float64(want) || want == 0 {
			t.Errorf("%s is %v, want %v, not 0", name, numbers[name], want)
		}
	}
}

func lifeOfThePlugin(t *testing.T, b *bench) {
	db, p := b.limited(t, Config{PerUser: PerMinute(1)}, nil)
	if err := db.Use(p); err == nil {
		t.Error("used twice on one DB")
	}
	if err := b.open(t, nil).Use(p); err == nil || !strings.Contains(err.Error(), "already used") {
		t.Errorf("used on two DBs: %v", err)
	}
	ctx := exhaust(t, p, "a")
	wantLimited(t, "before Close", db.WithContext(ctx).Find(&[]owner{}).Error)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, f := range []func() error{
		func() error { return db.WithContext(ctx).Find(&[]owner{}).Error },
		func() error { return p.Limiter().Allow(ctx) },
	} {
		if err := f(); err != nil {
			t.Errorf("after Close: %v", err)
		}
	}
	if err := b.open(t, nil).Use(p); err == nil {
		t.Error("used after Close")
	}
	bad := b.open(t, nil)
	if err := bad.Use(New(Config{PerUser: Limit{Max: -1, Window: time.Second}, Timeout: -1})); err == nil ||
		!strings.Contains(err.Error(), "PerUser.Max") || !strings.Contains(err.Error(), "Timeout") {
		t.Errorf("invalid: %v", err)
	}
	if _, ok := bad.Plugins["infra:hook"]; ok {
		t.Error("hooked in with a faulty configuration")
	}
	for _, cfg := range []Config{{}, {PerUser: PerMinute(1), Disabled: true}} {
		free, q := b.limited(t, cfg, nil)
		for range 3 {
			if err := free.WithContext(ctx).Find(&[]owner{}).Error; err != nil {
				t.Error(err)
			}
		}
		if q.Limiter() == nil || q.Name() != "infra:limits" {
			t.Error("no limiter, or no name")
		}
	}
	if err := New(Config{}).Limiter().Allow(ctx); err != nil {
		t.Errorf("before Use: %v", err)
	}
	if err := New(Config{}).Close(); err != nil {
		t.Error(err)
	}
}

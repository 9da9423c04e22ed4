package cachehook

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/hook"
)

// explained is a statement, what shall be said of it, and what its result depends on.
type explained struct {
	name    string
	run     func(tx *gorm.DB) error
	reason  Reason // "": cacheable
	depends string // Tables and Rows
	unseen  string
	rows    bool // not kept as models
	fails   bool // when it is sent
}

func explainedStatements() []explained {
	var p product
	var all []product
	var n int64
	var names []string
	find := func(tx *gorm.DB) error { return tx.Limit(3).Find(&all).Error }
	return []explained{
		{name: "by key", run: func(tx *gorm.DB) error { p = product{}; return tx.First(&p, 42).Error }, depends: "products products#42"},
		{name: "by keys", run: func(tx *gorm.DB) error { return tx.Find(&all, []int64{2, 1}).Error }, depends: "products products#1 products#2"},
		{name: "list", run: find, depends: "products"},
		{name: "generics", run: func(tx *gorm.DB) error {
			_, err := gorm.G[product](tx).Where("price > ?", 5).Find(context.Background())
			return err
		}, depends: "products"},
		{name: "count", run: func(tx *gorm.DB) error { return tx.Model(&p).Where("price > 3").Count(&n).Error }, depends: "products", rows: true},
		{name: "pluck", run: func(tx *gorm.DB) error { return tx.Model(&p).Order("id").Pluck("name", &names).Error }, depends: "products", rows: true},
		{name: "map", run: func(tx *gorm.DB) error {
			m := map[string]any{}
			return tx.Model(&product{}).Take(&m).Error
		}, depends: "products", rows: true},
		{name: "some columns", run: func(tx *gorm.DB) error { return tx.Select("id", "name").Find(&all).Error }, depends: "products"},
		{name: "raw scan", run: func(tx *gorm.DB) error { return tx.Raw("SELECT max(price) FROM products").Scan(&n).Error }, depends: "products", rows: true},
		{name: "row", run: func(tx *gorm.DB) error {
			return tx.Raw("SELECT count(*) FROM products").Row().Scan(&n)
		}, depends: "products", rows: true},
		{name: "rows", run: func(tx *gorm.DB) error {
			rows, err := tx.Model(&p).Select("name").Rows()
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return rows.Err()
		}, depends: "products", rows: true},
		{name: "subquery", run: func(tx *gorm.DB) error {
			return tx.Where("id IN (?)", tx.Session(&gorm.Session{NewDB: true}).Model(&demand{}).Select("product_id")).Clauses(TTL(time.Minute)).Find(&all).Error
		}, depends: "orders products"},
		{name: "clause", run: func(tx *gorm.DB) error { return tx.Clauses(TTL(time.Minute)).Find(&[]demand{}).Error }, depends: "orders"},
		{name: "view", run: func(tx *gorm.DB) error {
			return tx.Clauses(TTL(time.Minute)).Table("outer_view").Find(&[]map[string]any{}).Error
		}, depends: "orders products", unseen: "view inner_view reads orders|view outer_view reads inner_view, products", rows: true},
		{name: "declared function", run: func(tx *gorm.DB) error {
			return tx.Raw("SELECT id, ordered(id) FROM products ORDER BY id").Scan(&[]map[string]any{}).Error
		}, depends: "orders products", unseen: "function ordered reads orders", rows: true},

		{name: "no rule", run: func(tx *gorm.DB) error { return tx.Find(&[]demand{}).Error }, reason: ReasonRule},
		{name: "one without a rule", run: func(tx *gorm.DB) error {
			return tx.Joins("JOIN orders ON orders.product_id = products.id").Find(&all).Error
		}, reason: ReasonRule},
		{name: "locks", run: func(tx *gorm.DB) error {
			return tx.Clauses(clause.Locking{Strength: "UPDATE"}).Find(&all).Error
		}, reason: ReasonStatement},
		{name: "now", run: func(tx *gorm.DB) error { return tx.Where("now() IS NOT NULL").Find(&all).Error }, reason: ReasonStatement},
		{name: "volatile function", run: func(tx *gorm.DB) error { return tx.Raw("SELECT noisy() FROM products").Scan(&names).Error }, reason: ReasonStatement},
		{name: "system", run: func(tx *gorm.DB) error {
			return tx.Clauses(TTL(time.Minute)).Raw("SELECT relname FROM pg_catalog.pg_class").Scan(&names).Error
		}, reason: ReasonStatement},
		{name: "write", run: func(tx *gorm.DB) error { return tx.Model(&product{ID: 1}).Update("price", 3).Error }, reason: ReasonStatement},
		{name: "exec", run: func(tx *gorm.DB) error { return tx.Exec("SELECT 1 FROM products").Error }, reason: ReasonStatement},
		{name: "first or init", run: func(tx *gorm.DB) error { p = product{}; return tx.Where("id = ?", 3).FirstOrInit(&p).Error }, reason: ReasonStatement},
		{name: "skip", run: func(tx *gorm.DB) error { return find(tx.WithContext(Skip(tx.Statement.Context))) }, reason: ReasonSkip},
		{name: "node", run: func(tx *gorm.DB) error { return find(tx.Clauses(dbresolver.Write)) }, reason: ReasonNode},
		{name: "unknown function", run: func(tx *gorm.DB) error {
			return tx.Raw("SELECT stable_but_undeclared() FROM products").Scan(&names).Error
		}, reason: ReasonTable},
		{name: "foreign table of no name", run: func(tx *gorm.DB) error {
			return tx.Clauses(TTL(time.Minute)).Raw("SELECT * FROM nowhere").Scan(&names).Error
		}, reason: ReasonTable, fails: true},
		{name: "tag of no table", run: func(tx *gorm.DB) error { return tx.Clauses(Tags(Table("nowhere"))).Find(&all).Error }, reason: ReasonTable},
		{name: "empty tag", run: func(tx *gorm.DB) error { return tx.Clauses(Tags("")).Find(&all).Error }, reason: ReasonTag},
		{name: "argument", run: func(tx *gorm.DB) error {
			return tx.Where("?::inet IS NOT NULL", netip.MustParseAddr("10.0.0.1")).Find(&all).Error
		}, reason: ReasonArgument},
	}
}

func explainable(t *testing.T, cfg Config) *instance {
	t.Helper()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE orders (id bigint PRIMARY KEY, product_id bigint, amount bigint)`,
		`INSERT INTO orders SELECT i, i, i FROM generate_series(1, 3) i`,
		`CREATE VIEW inner_view AS SELECT product_id FROM orders`,
		`CREATE VIEW outer_view AS SELECT p.name FROM products p JOIN inner_view v ON v.product_id = p.id`,
		`CREATE FUNCTION ordered(bigint) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM orders WHERE product_id = $1'`,
		`CREATE FUNCTION stable_but_undeclared() RETURNS text STABLE LANGUAGE sql AS 'SELECT min(name) FROM products'`,
		`CREATE FUNCTION noisy() RETURNS text VOLATILE LANGUAGE sql AS 'SELECT min(name) FROM products'`)
	cfg.Tables = map[string]Rule{"products": {TTL: time.Hour, StaleFor: time.Minute}}
	cfg.Functions = map[string][]string{"ordered": {"orders"}}
	db := open(t, dsn, cfg)
	ready(t, db)
	return db
}

type demand struct{ ID, ProductID, Amount int64 }

func (demand) TableName() string { return "orders" }

// TestC10ExplainSaysWhatHappens runs each statement after it was explained: what is
// said to be cacheable is a hit at its second run, under the key and the tags that
// were told, and what is not goes past the cache for the reason that was told.
func TestC10ExplainSaysWhatHappens(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := explainable(t, cfg)
		for _, s := range explainedStatements() {
			x, err := db.cache.Explain(db.DB, s.run)
			must(t, err)
			if len(x) != 1 {
				t.Fatalf("%s: %d statements were explained: %v", s.name, len(x), x)
			}
			e := x[0]
			if e.Cacheable != (s.reason == "") || e.Reason != s.reason || !e.Cacheable && e.Why == "" {
				t.Fatalf("%s: want the reason %q, got\n%v", s.name, s.reason, e)
			}
			happened := func() (lookups [4]int, bypasses map[string]uint64) {
				for l := range lookups {
					lookups[l] = db.seen.looked(hook.Lookup(l))
				}
				return lookups, db.cache.Stats().Bypasses
			}
			if err := s.run(db.DB); (err != nil) != s.fails {
				t.Fatalf("%s: %v", s.name, err)
			}
			before, counted := happened()
			_ = s.run(db.DB)
			after, counts := happened()
			if e.Cacheable {
				if after[hook.Hit] != before[hook.Hit]+1 {
					t.Fatalf("%s: said to be cacheable, and no hit: %v %v\n%v", s.name, before, after, e)
				}
				dependsAsSaid(t, db, s, e)
				continue
			}
			if after[hook.Hit] != before[hook.Hit] || after[hook.Miss] != before[hook.Miss] {
				t.Fatalf("%s: said not to be cacheable (%s), and it was: %v %v", s.name, e.Reason, before, after)
			}
			if _, counts1 := counts[string(e.Reason)]; counts1 && counts[string(e.Reason)] != counted[string(e.Reason)]+1 {
				t.Fatalf("%s: not counted as %s: %v", s.name, e.Reason, counts)
			} else if !counts1 && after[hook.Bypass] != before[hook.Bypass] {
				t.Fatalf("%s: counted as something else than %s: %v", s.name, e.Reason, counts)
			}
		}
	})
}

// dependsAsSaid compares what was said of a statement that has run with the entry
// that it left in memory.
func dependsAsSaid(t *testing.T, db *instance, s explained, e Explanation) {
	t.Helper()
	schema := strings.TrimSuffix(strings.TrimPrefix(db.table(t, "products"), tablePrefix), "products")
	said := strings.ReplaceAll(strings.Join(slices.Concat(e.Tables, e.Rows), " "), schema, "")
	if said != s.depends || strings.Join(sorted(e.Unseen), "|") != s.unseen || e.Models == s.rows {
		t.Fatalf("%s: want %q %q, models %v; got\n%v", s.name, s.depends, s.unseen, !s.rows, e)
	}
	x, err := db.cache.Explain(db.DB, s.run, WithPresence)
	must(t, err)
	p := x[0].Presence
	if p == nil || !p.Memory.Valid || p.Memory.Left <= 0 || p.Memory.Bytes == 0 {
		t.Fatalf("%s: it is in memory, but: %v", s.name, x)
	}
	var kept []string
	newest := newestOf(db.cache.memory)
	for i := range newest.dependsOn() {
		if tag := newest.dep(i).cell.tag; tag != everyTag && tag != schemaTag && !strings.HasSuffix(tag, rowMark) {
			kept = append(kept, strings.ReplaceAll(nameOf(tag), schema, ""))
		}
	}
	// All rows were found: the table itself does not count.
	told := slices.DeleteFunc(strings.Fields(s.depends), func(name string) bool { return len(e.Rows) > 0 && !strings.Contains(name, "#") })
	if !slices.Equal(sorted(kept), sorted(told)) {
		t.Fatalf("%s: the entry depends on %q, told was %q", s.name, kept, told)
	}
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// newestOf returns the entry that was made last.
func newestOf(m *memory) (newest *entry) {
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		for _, e := range sh.items {
			if newest == nil || e.read > newest.read {
				newest = e
			}
		}
		sh.mu.Unlock()
	}
	return newest
}

func TestC10ExplainSeesWhereAStatementRuns(t *testing.T) {
	t.Parallel()
	db := explainable(t, Config{})
	find := func(tx *gorm.DB) error { return tx.Find(&[]product{}).Error }
	reasonOf := func(db *gorm.DB, c *Cache) Reason {
		t.Helper()
		x, err := c.Explain(db, find)
		must(t, err)
		return x[0].Reason
	}
	must(t, db.Transaction(func(tx *gorm.DB) error {
		equal(t, "in a transaction", reasonOf(tx, db.cache), ReasonTransaction)
		return nil
	}))
	must(t, db.Connection(func(tx *gorm.DB) error {
		equal(t, "on a connection", reasonOf(tx, db.cache), ReasonConnection)
		return nil
	}))
	equal(t, "with statements prepared", reasonOf(db.Session(&gorm.Session{PrepareStmt: true}), db.cache), "")
	x, err := db.cache.Explain(db.DB, func(tx *gorm.DB) error { return find(tx.Session(&gorm.Session{PrepareStmt: true})) })
	must(t, err)
	equal(t, "with statements prepared within", x[0].Reason, "")
	must(t, db.Exec("SET ROLE NONE").Error)
	equal(t, "after a change of role", reasonOf(db.DB, db.cache), ReasonSession)
	must(t, db.Find(&[]product{}).Error)
	equal(t, "look-ups", db.seen.looked(hook.Hit)+db.seen.looked(hook.Miss), 0)
}

// TestC10ExplainSendsNothing lets the database have one connection, which is in
// use: what were sent would wait for it.
func TestC10ExplainSendsNothing(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	db := explainable(t, Config{Redis: rdb, Name: name, Warm: []WarmQuery{{Name: "w", Run: func(db *gorm.DB) error { return db.Find(&[]product{}).Error }}}})
	for _, s := range explainedStatements() {
		_, err := db.cache.Explain(db.DB, s.run) // reads what has to be known of the catalogue
		must(t, err)
	}
	pool, err := db.DB.DB()
	must(t, err)
	pool.SetMaxOpenConns(1)
	conn, err := pool.Conn(t.Context())
	must(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	before, waited := db.cache.Stats(), pool.Stats().WaitCount
	reached := db.seen.queries.Load()
	tx := db.WithContext(ctx)
	for _, s := range explainedStatements() {
		_, err := db.cache.Explain(tx, s.run, WithPresence)
		must(t, err)
	}
	for _, q := range db.cache.cfg.Warm {
		x, err := db.cache.Explain(tx, q.Run)
		must(t, err)
		equal(t, "a warming query is cacheable", x[0].Cacheable, true)
	}
	refused := func(what string, run func(tx *gorm.DB) error) {
		t.Helper()
		if _, err := db.cache.Explain(tx, run); err == nil || ctx.Err() != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	refused("a transaction", func(tx *gorm.DB) error { return tx.Transaction(func(tx *gorm.DB) error { return nil }) })
	refused("a transaction with prepared statements", func(tx *gorm.DB) error {
		return tx.Session(&gorm.Session{PrepareStmt: true}).Transaction(func(tx *gorm.DB) error { return nil })
	})
	refused("a connection", func(tx *gorm.DB) error { return tx.Connection(func(tx *gorm.DB) error { return nil }) })
	refused("the pool itself", func(tx *gorm.DB) error {
		return tx.Statement.ConnPool.QueryRowContext(ctx, "SELECT 1").Scan(new(int))
	})
	equal(t, "waits for the connection", pool.Stats().WaitCount, waited)
	equal(t, "statements charged or observed", db.seen.queries.Load(), reached)
	after := db.cache.Stats()
	a, err := json.Marshal(before)
	must(t, err)
	b, err := json.Marshal(after)
	must(t, err)
	equal(t, "numbers", string(b), string(a))
}

// TestC10ExplainOfSeveralStatements builds a page of results, as programs do, on one
// chain.
func TestC10ExplainOfSeveralStatements(t *testing.T) {
	t.Parallel()
	db := explainable(t, Config{})
	var n int64
	x, err := db.cache.Explain(db.DB, func(tx *gorm.DB) error {
		page := tx.Model(&product{}).Where("price > ?", 10)
		if err := page.Count(&n).Error; err != nil {
			return err
		}
		if err := page.Order("id").Limit(5).Find(&[]product{}).Error; err != nil {
			return err
		}
		return gorm.ErrRecordNotFound // as after an empty page
	})
	must(t, err)
	if len(x) != 2 || !strings.Contains(x[0].SQL, "count(*)") || strings.Contains(x[1].SQL, "count(*)") || !strings.Contains(x[1].SQL, "LIMIT") {
		t.Fatalf("explained: %v", x)
	}
	equal(t, "arguments", strings.Join(x[1].Arguments, " "), "int int")
	var got []map[string]any
	text, err := json.Marshal(x)
	must(t, err)
	must(t, json.Unmarshal(text, &got))
	if got[0]["cacheable"] != true || got[0]["key"].(map[string]any)["destination"] != "*int64" {
		t.Fatalf("as JSON: %s", text)
	}
	for _, want := range []string{`cached by    rule "products"`, "memory 1h0m0s, up to 10 % less, nothing found 10s, stale for 1m0s", "kept as      models", "into *[]cachehook.product"} {
		if !strings.Contains(x.String(), want) {
			t.Errorf("%q is not in\n%s", want, x)
		}
	}
	own := errors.New("own")
	x, err = db.cache.Explain(db.DB, func(tx *gorm.DB) error { tx.Find(&[]product{}); return own })
	if len(x) != 1 || !errors.Is(err, own) {
		t.Fatalf("an error of the function: %v %v", x, err)
	}
}

func TestC10ExplainNamesWrongInput(t *testing.T) {
	t.Parallel()
	db, other := explainable(t, Config{}), explainable(t, Config{})
	find := func(tx *gorm.DB) error { return tx.Find(&[]product{}).Error }
	failed := db.Session(&gorm.Session{})
	_ = failed.AddError(errors.New("before"))
	for want, call := range map[string]func() (Explanations, error){
		"db is nil":                      func() (Explanations, error) { return db.cache.Explain(nil, find) },
		"db is nil: it":                  func() (Explanations, error) { return db.cache.Explain(&gorm.DB{}, find) },
		"run is nil":                     func() (Explanations, error) { return db.cache.Explain(db.DB, nil) },
		"has failed before: before":      func() (Explanations, error) { return db.cache.Explain(failed, find) },
		"not the one that the plugin":    func() (Explanations, error) { return db.cache.Explain(other.DB, find) },
		"option 7: must be WithPresence": func() (Explanations, error) { return db.cache.Explain(db.DB, find, 7) },
		"built no statement":             func() (Explanations, error) { return db.cache.Explain(db.DB, func(*gorm.DB) error { return nil }) },
		"not in use":                     func() (Explanations, error) { return New(Config{}).Explain(db.DB, find) },
		"L1.TTL is -1s":                  func() (Explanations, error) { return New(Config{L1: L1{TTL: -time.Second}}).Explain(db.DB, find) },
		"disabled":                       func() (Explanations, error) { return New(Config{Disabled: true}).Explain(db.DB, find) },
		"unsupported data type": func() (Explanations, error) {
			return db.cache.Explain(db.DB, func(tx *gorm.DB) error { return tx.Find(nil).Error })
		},
	} {
		if x, err := call(); err == nil || !strings.Contains(err.Error(), want) || len(x) > 0 {
			t.Errorf("want an error that says %q, got %v %v", want, x, err)
		}
	}
	must(t, other.cache.Close())
	if _, err := other.cache.Explain(other.DB, find); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("closed: %v", err)
	}
}

func TestReasonsAreTheWordsOfTheMetrics(t *testing.T) {
	t.Parallel()
	words := []Reason{ReasonTable, ReasonCatalog, ReasonArgument, ReasonTag, ReasonSize, ReasonWriter, ReasonRedis, ReasonRoster, ReasonTenant}
	for _, name := range reasonNames {
		if !slices.Contains(words, Reason(name)) {
			t.Errorf("no Reason for the word %q of the metric", name)
		}
	}
	equal(t, "reasons", len(words), len(reasonNames))
}

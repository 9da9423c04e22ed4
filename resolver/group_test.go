package resolver

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/testbed"
)

// The tables of two databases.
type (
	user struct {
		ID     uint
		Name   string
		Orders []order
	}
	order struct {
		ID      uint
		OrderNo string
		UserID  uint
	}
	product struct {
		ID   uint
		Name string
	}
)

const schemaOfGroups = `CREATE TABLE users (id serial PRIMARY KEY, name text); CREATE TABLE orders (id serial PRIMARY KEY, order_no text, user_id int);
	CREATE TABLE products (id serial PRIMARY KEY, name text);
	INSERT INTO users (name) VALUES (current_database()); INSERT INTO orders (order_no, user_id) VALUES (current_database(), 1);
	INSERT INTO products (name) VALUES (current_database());
	CREATE FUNCTION steady() RETURNS bool STABLE LANGUAGE sql AS 'SELECT pg_is_in_recovery()';
	CREATE FUNCTION declared() RETURNS bool STABLE LANGUAGE sql AS 'SELECT pg_is_in_recovery()'`

// two makes a second database beside g's, both with the tables of groups.
func (g *rig) two() (second string) {
	g.t.Helper()
	second = g.c.NewDatabase(g.t)
	for _, name := range []string{g.name, second} {
		must(g.t, g.c.Primary().Exec(deadline(g.t), name, schemaOfGroups))
	}
	must(g.t, g.c.WaitCaughtUp(deadline(g.t)))
	return second
}

// count asks the primary.
func (g *rig) count(db, query string) (n int64) {
	g.t.Helper()
	conn, err := g.c.Primary().Conn(deadline(g.t), db)
	must(g.t, err)
	defer conn.Close(deadline(g.t))
	must(g.t, conn.QueryRow(deadline(g.t), query).Scan(&n))
	return n
}

// servedAt tells where a query goes: the database, and * for the primary.
func servedAt(t *testing.T, db *gorm.DB, model any) string {
	t.Helper()
	var s string
	err := db.Model(model).Select("current_database() || CASE WHEN pg_is_in_recovery() THEN '' ELSE '*' END").Limit(1).Scan(&s).Error
	must(t, err)
	return s
}

func TestR14GroupsWithASourceOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	second := g.two()
	g.close()
	g.open(Config{
		Probe: patient, Pool: Pool{Max: 4, Min: 1}, Logger: quiet(),
		Replicas: DSNs(g.nodes...),
		Groups: []Group{{
			Name: "people", Tables: []any{"users", &product{}}, Source: &Node{DSN: c.Primary().DSN(second)},
			Replicas: []Node{{DSN: c.Replica(1).DSN(second)}},
		}},
		Functions: map[string]Volatility{"declared": ReadOnly},
	})
	g.allInUse()
	fresh := func() *gorm.DB { return g.db.WithContext(inScope(deadline(t), "request")) }
	for what, got := range map[string][2]string{
		"order":            {servedAt(t, fresh(), &order{}), g.name},
		"user":             {servedAt(t, fresh(), &user{}), second},
		"product":          {servedAt(t, fresh(), &product{}), second},
		"table":            {servedAt(t, fresh().Table("users"), nil), second},
		"user, Write":      {servedAt(t, fresh().Clauses(dbresolver.Write), &user{}), second + "*"},
		"Use":              {servedAt(t, fresh().Clauses(dbresolver.Use("people")), &order{}), second},
		"Use a table":      {servedAt(t, fresh().Clauses(dbresolver.Use("users")), &order{}), second},
		"Use, Write":       {servedAt(t, fresh().Clauses(dbresolver.Use("people"), dbresolver.Write), &order{}), second + "*"},
		"Write, Use":       {servedAt(t, fresh().Clauses(dbresolver.Write, dbresolver.Use("people")), &order{}), second + "*"},
		"Use a node":       {servedAt(t, fresh().Clauses(dbresolver.Use("people_replica1")), &order{}), second},
		"Use the source":   {servedAt(t, fresh().Clauses(dbresolver.Use("people_source")), &order{}), second + "*"},
		"Use a main node":  {servedAt(t, fresh().Clauses(dbresolver.Use("replica2")), &user{}), g.name},
		"Primary":          {servedAt(t, g.db.WithContext(Primary(deadline(t))), &user{}), second + "*"},
		"Critical":         {servedAt(t, g.db.WithContext(WithPriority(deadline(t), Critical)), &user{}), second + "*"},
		"Table and schema": {servedAt(t, fresh().Table("public.users"), nil), second},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: on %s, want %s", what, got[0], got[1])
		}
	}
	// What pg_proc says on the main database is not known of another one.
	for call, want := range map[string]string{"steady()": second + "*", "declared()": second} {
		var got string
		must(t, fresh().Raw("SELECT current_database() || CASE WHEN "+call+" THEN '' ELSE '*' END FROM users LIMIT 1").Scan(&got).Error)
		if got != want {
			t.Errorf("%s on the group's table: on %s, want %s", call, got, want)
		}
	}
	var name string
	must(t, fresh().Raw("SELECT name FROM users").Row().Scan(&name))
	if name != second {
		t.Errorf("raw SQL reads users on %s", name)
	}
	if err := fresh().Clauses(dbresolver.Use("nobody")).First(&user{}).Error; !errors.Is(err, ErrUnknownNode) || !strings.Contains(err.Error(), "people") {
		t.Errorf("Use of an unknown name: %v", err)
	}

	var parent user
	must(t, fresh().Preload("Orders").First(&parent).Error)
	if parent.Name != second || len(parent.Orders) != 1 || parent.Orders[0].OrderNo != g.name {
		t.Errorf("a preload from the other database: %+v", parent)
	}

	// Writes, with GORM's own transaction and without, and what reads see of them.
	for _, db := range []*gorm.DB{g.db, g.db.Session(&gorm.Session{SkipDefaultTransaction: true}), g.db.Session(&gorm.Session{PrepareStmt: true})} {
		ctx := inScope(deadline(t), "writer")
		u := user{Name: "created"}
		must(t, db.WithContext(ctx).Clauses(dbresolver.Read).Create(&u).Error) // the clause is for reads
		var got user
		must(t, db.WithContext(ctx).First(&got, u.ID).Error)
		must(t, db.WithContext(ctx).Exec("UPDATE users SET name = 'updated' WHERE id = ?", u.ID).Error)
		must(t, db.WithContext(ctx).First(&got, u.ID).Error)
		if got.Name != "updated" {
			t.Errorf("the writer reads %q", got.Name)
		}
		if g.count(second, "SELECT count(*) FROM users WHERE name = 'updated'") == 0 {
			t.Error("the write is not in the group's database")
		}
		must(t, db.WithContext(ctx).Delete(&u).Error)
	}

	// A write to the group is no reason to keep reads of others on the primary.
	ctx := inScope(deadline(t), "writer")
	must(t, g.db.WithContext(ctx).Create(&user{Name: "other"}).Error)
	if got := servedAt(t, g.db.WithContext(ctx), &order{}); got != g.name {
		t.Errorf("after a write to the group, others are read on %s", got)
	}

	// Transactions.
	for what, tt := range map[string]struct {
		db   *gorm.DB
		want string
	}{
		"plain":     {fresh(), g.name + "*"},
		"Use":       {fresh().Clauses(dbresolver.Use("people")), second + "*"},
		"Use, Read": {fresh().Clauses(dbresolver.Use("people"), dbresolver.Read), second},
		"Table":     {fresh().Table("users").Clauses(dbresolver.Write), second + "*"},
		"Model":     {fresh().Model(&product{}).Clauses(dbresolver.Read), second},
	} {
		tx := tt.db.Begin()
		must(t, tx.Error)
		if got := servedAt(t, tx.Session(&gorm.Session{NewDB: true}), &order{}); got != tt.want {
			t.Errorf("Begin, %s: on %s, want %s", what, got, tt.want)
		}
		must(t, tx.Rollback().Error)
	}

	// A migration stays in one database: the named one, or the main one.
	must(t, g.db.Exec("CREATE TABLE tags (id int)").Error)
	type Label struct{ ID uint }
	must(t, fresh().Clauses(dbresolver.Use("people")).AutoMigrate(&Label{}))
	must(t, fresh().Clauses(dbresolver.Use("people")).AutoMigrate(&Label{}))
	if g.count(second, "SELECT count(*) FROM pg_class WHERE relname = 'labels'") != 1 {
		t.Error("the named migration did not reach the group's database")
	}

	status := g.r.Stats().Groups
	if len(status) != 1 || status[0].Name != "people" || !slices.Equal(status[0].Tables, []string{"users", "products"}) ||
		status[0].Source != "people_source" || !slices.Equal(status[0].Replicas, []string{"people_replica1"}) || status[0].Rotation != 1 {
		t.Errorf("%+v", status)
	}
	if n := g.node("people_replica1"); !slices.Equal(n.Groups, []string{"people"}) {
		t.Errorf("%+v", n.Groups)
	}

	// Its nodes come and go as others do.
	must(t, g.r.AddReplica(deadline(t), Node{Name: "more", DSN: c.Replica(0).DSN(second)}, "people"))
	eventually(t, "the new node to be read", func() bool {
		return servedAt(t, fresh(), &user{}) == second && g.node("more").Decisions["replica"] > 0
	})
	must(t, g.r.RemoveReplica(deadline(t), "people_replica1"))
	must(t, g.r.RemoveReplica(deadline(t), "more"))
	if got := servedAt(t, fresh(), &user{}); got != second+"*" {
		t.Errorf("without replicas the group is read on %s", got)
	}
}

func TestR14GroupsOfOneDatabase(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	g.two()
	g.close()
	g.open(Config{
		Probe: patient, Pool: Pool{Max: 4, Min: 1}, Logger: quiet(),
		Replicas: []Node{{Name: "a", DSN: g.nodes[0]}, {Name: "idle", DSN: g.nodes[0], Weight: NoReads}},
		Groups: []Group{
			{Name: "reports", Tables: []any{"users"}, Replicas: []Node{{Name: "b", DSN: g.nodes[1]}}},
			{Name: "both", Tables: []any{&order{}}, Replicas: []Node{{Name: "a"}, {Name: "c", DSN: g.nodes[1], Weight: 2}}, Policy: RoundRobin()},
			{Name: "ledger", Tables: []any{"products"}},
			{Name: "gone", Tables: []any{"lost"}, Replicas: []Node{{Name: "d", DSN: lost}}},
			{Name: "strict", Tables: []any{"parts"}, Replicas: []Node{{Name: "a"}}, MaxLag: time.Millisecond},
		},
	})
	eventually(t, "the nodes to be fit", func() bool {
		for _, n := range g.r.Nodes() {
			if n.Name != "d" && (!n.Up || n.Staleness < 0) {
				return false
			}
		}
		return true
	})
	served := func(db *gorm.DB, n int) map[string]int {
		before := map[string]uint64{}
		total := func(s NodeStatus) (sum uint64) {
			for _, d := range s.Decisions {
				sum += d
			}
			return sum
		}
		for _, s := range g.r.Nodes() {
			before[s.Name] = total(s)
		}
		for range n {
			must(t, db.WithContext(inScope(deadline(t), "request")).Session(&gorm.Session{}).Limit(1).Find(&[]map[string]any{}).Error)
		}
		by := map[string]int{}
		for _, s := range g.r.Nodes() {
			if d := total(s) - before[s.Name]; d > 0 {
				by[s.Name] = int(d)
			}
		}
		return by
	}
	only := func(what string, by map[string]int, names ...string) {
		t.Helper()
		if len(by) != len(names) {
			t.Errorf("%s: served by %v, want %v; primary %v", what, by, names, g.node("primary").Decisions)
		}
		for _, n := range names {
			if by[n] == 0 {
				t.Errorf("%s: served by %v, want %v", what, by, names)
			}
		}
	}
	only("outside groups", served(g.db.Table("items"), 8), "a")
	only("a group with a node of its own", served(g.db.Table("users"), 8), "b")
	if by := served(g.db.Table("orders"), 8); by["a"] != 4 || by["c"] != 4 {
		t.Errorf("a group with a shared node, in turn: %v", by)
	}
	only("a group without replicas", served(g.db.Table("products"), 4), "primary")
	only("a join with a table of the primary", served(g.db.Table("items").Joins("JOIN products ON products.id = items.id"), 4), "primary")
	only("a join with a stricter table", served(g.db.Table("items").Joins("JOIN parts ON parts.id = items.id"), 4), "primary")
	only("a stricter group", served(g.db.Table("parts"), 4), "primary")
	only("no reads, but by name", served(g.db.Table("items").Clauses(dbresolver.Use("idle")), 4), "idle")
	must(t, g.db.Exec("CREATE TABLE lost AS SELECT 1 AS id").Error)
	must(t, g.c.WaitCaughtUp(deadline(t)))
	only("a group whose replicas are all out", served(g.db.Table("lost"), 4), "primary")
	ctx := WithPriority(inScope(deadline(t), "job"), Background)
	if err := g.db.WithContext(ctx).Table("lost").Find(&[]map[string]any{}).Error; !errors.Is(err, ErrNoReplica) {
		t.Errorf("a background read of a group whose replicas are all out: %v", err)
	}

	// A preload stays with its parent, whichever group its table has.
	only("a preload of another group", func() map[string]int {
		by := map[string]int{}
		before := g.r.Nodes()
		must(t, g.db.WithContext(inScope(deadline(t), "request")).Preload("Orders").First(&user{}).Error)
		for i, s := range g.r.Nodes() {
			if s.Decisions["preload"] > before[i].Decisions["preload"] {
				by[s.Name]++
			}
		}
		return by
	}(), "b")
}

func TestFunctionsAreWhatTheUserSays(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	must(t, g.c.Primary().Exec(deadline(t), g.name, `CREATE FUNCTION harmless() RETURNS bool VOLATILE LANGUAGE sql AS 'SELECT pg_is_in_recovery()';
		CREATE FUNCTION harmful() RETURNS bool STABLE LANGUAGE sql AS 'SELECT pg_is_in_recovery()'`))
	must(t, g.c.WaitCaughtUp(deadline(t)))
	read := func(call string) (replica bool) {
		must(t, g.db.WithContext(inScope(deadline(t), "request")).Raw("SELECT "+call).Scan(&replica).Error)
		return replica
	}
	g.allInUse()
	if read("harmless()") || !read("harmful()") {
		t.Error("pg_proc is not heeded")
	}
	g.close()
	g.open(Config{
		Probe: patient, Pool: Pool{Max: 4, Min: 1}, Logger: quiet(), Replicas: DSNs(g.nodes...),
		Functions: map[string]Volatility{"harmless": ReadOnly, "harmful": Volatile},
	})
	g.allInUse()
	if !read("harmless()") || read("harmful()") {
		t.Error("the configuration is not heeded")
	}
}

func TestGroupFaultsAreFound(t *testing.T) {
	t.Parallel()
	err := Config{
		Replicas: DSNs("host=h"),
		Groups: []Group{
			{},
			{Name: "replica1", MaxLag: -1, Tables: []any{"", 7}},
			{Name: "a", Replicas: []Node{{Name: "nobody"}}},
			{Name: "b", Source: &Node{DSN: "host=h"}, Replicas: []Node{{Name: "replica1"}}},
		},
		Functions:  map[string]Volatility{"f": 9},
		Priorities: Priorities{Critical: Class{MaxLag: -1}},
		Pool:       Pool{Max: 3, Reserve: 3},
	}.Validate()
	for _, want := range []string{
		`Groups[0].Name is "": must be set`,
		`Groups[1].Name is "replica1": must differ from that of Replicas[0]`,
		`Groups[1].MaxLag is -1ns`, `Groups[1].Tables[0] is string`, `Groups[1].Tables[1] is int`,
		`Groups[2].Replicas[0].Name is "nobody": without DSN and Dialector must name one of Config.Replicas`,
		`Groups[3].Replicas[0] is without DSN and Dialector`,
		`Functions["f"] is Volatility(9)`, `Priorities.Critical.MaxLag is -1ns`, `Pool.Reserve is 3`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

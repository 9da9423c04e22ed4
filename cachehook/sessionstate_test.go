package cachehook

import (
	"fmt"
	"testing"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

func TestSessionChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sql  string
		args []any
		want effect
	}{
		{"SET search_path TO b", nil, otherNames},
		{"SET SCHEMA 'b'", nil, otherNames},
		{`SET SESSION "search_path" = b`, nil, otherNames},
		{"RESET ALL", nil, otherNames},
		{"RESET search_path", nil, otherNames},
		{"SELECT set_config('search_path', ?, false)", []any{"b"}, otherNames},
		{"SELECT set_config(?, ?, false)", []any{"search_path", "b"}, otherNames},
		{"SELECT set_config($1, $2, $3)", []any{"app.tenant", "b", false}, otherNames},
		{"SELECT set_config('a', 'true', false) -- true", nil, otherNames},
		{"SET /* local */ search_path TO b", nil, otherNames},
		{"SELECT 1; SET SCHEMA 'b'", nil, otherNames},

		{"SET TIME ZONE 'UTC'", nil, otherValues},
		{"set\n  TimeZone = 'UTC'", nil, otherValues},
		{"SELECT set_config(?, ?, false)", []any{"DateStyle", "German"}, otherValues},

		{"SET ROLE bob", nil, otherRole},
		{"SET SESSION ROLE bob", nil, otherRole},
		{"SET SESSION AUTHORIZATION bob", nil, otherRole},
		{"RESET ROLE", nil, otherRole},
		{"DISCARD ALL", nil, otherRole},
		{"SET role = 'bob'", nil, otherRole},
		{"SELECT set_config('role', 'bob', false)", nil, otherRole},
		{"SELECT set_config(?, ?, false)", []any{"role", "bob"}, otherRole},
		{"SELECT set_config(?, ?, ?)", []any{"session_authorization", "bob", false}, otherRole},

		{"SET LOCAL ROLE bob", nil, noChange},
		{"SET LOCAL search_path TO b", nil, noChange},
		{"SELECT set_config('role', 'bob', true)", nil, noChange},
		{"SELECT set_config($1, $2, $3)", []any{"role", "bob", true}, noChange},
		{"SET statement_timeout = 100", nil, noChange},
		{"SET SESSION statement_timeout = 100", nil, noChange},
		{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", nil, noChange},
		{"DISCARD PLANS", nil, noChange},
		{"LISTEN a", nil, noChange},
		{"PRAGMA foreign_keys = ON", nil, noChange},
	} {
		r := &hook.Record{SQL: c.sql, Args: c.args, Text: sqltext.Analyze(c.sql)}
		if !r.Text.Session {
			t.Errorf("%s: no session statement", c.sql)
		}
		if got := sessionChange(r); got != c.want {
			t.Errorf("%s %v: %v, want %v", c.sql, c.args, got, c.want)
		}
	}
}

// oneConnection is an instance on a pool of one connection, so that the next
// read runs in the session that was changed.
func oneConnection(t *testing.T) *instance {
	t.Helper()
	db := open(t, database(t), Config{})
	ready(t, db)
	pool, err := db.DB.DB()
	must(t, err)
	pool.SetMaxOpenConns(1)
	db.price(t, 1)
	equal(t, "hit", db.price(t, 1), 10)
	return db
}

func TestC11SchemaOfTheSessionChanged(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(db *gorm.DB, schema string) error{
		"SET SCHEMA": func(db *gorm.DB, s string) error { return db.Exec("SET SCHEMA '" + s + "'").Error },
		"set_config": func(db *gorm.DB, s string) error {
			return db.Exec("SELECT set_config(?, ?, false)", "search_path", s).Error
		},
		"on a connection": func(db *gorm.DB, s string) error {
			return db.Connection(func(c *gorm.DB) error { return c.Exec("SET SCHEMA '" + s + "'").Error })
		},
		"in a transaction": func(db *gorm.DB, s string) error {
			return db.Transaction(func(tx *gorm.DB) error { return tx.Exec("SET SCHEMA '" + s + "'").Error })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := oneConnection(t)
			schema := fmt.Sprintf("other%d", schemas.n.Add(1))
			must(t, db.Exec("CREATE SCHEMA "+schema).Error)
			must(t, db.Exec("CREATE TABLE "+schema+".products AS SELECT id, name, 7::bigint AS price FROM products").Error)
			equal(t, "before", db.price(t, 1), 10)
			equal(t, "before", db.price(t, 1), 10)
			must(t, set(db.DB, schema))
			equal(t, "after", db.price(t, 1), 7)
		})
	}
}

func TestC11RoleOfTheSessionChanged(t *testing.T) {
	t.Parallel()
	db := oneConnection(t)
	role := fmt.Sprintf("role%d", schemas.n.Add(1))
	must(t, db.Exec("CREATE ROLE "+role).Error)
	db.price(t, 1)
	must(t, db.Transaction(func(tx *gorm.DB) error { return tx.Exec("SET LOCAL ROLE " + role).Error }))
	hits := db.seen.count(hook.L1)
	equal(t, "after SET LOCAL", db.price(t, 1), 10)
	equal(t, "hits after SET LOCAL", db.seen.count(hook.L1), hits+1)
	must(t, db.Exec("SET ROLE "+role).Error)
	var p product
	if err := db.First(&p, 1).Error; err == nil {
		t.Fatalf("a role that may not read the table was served %v", p)
	}
	must(t, db.Exec("RESET ROLE").Error)
	db.price(t, 1)
	db.price(t, 1)
	equal(t, "hits after RESET ROLE", db.seen.count(hook.L1), hits+1)
}

func TestStatementsThatSetBySomeOtherName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sql  string
		want effect
	}{
		{"DO $$ BEGIN SET app.tenant = 'b'; END $$", otherNames},
		{"DO $$ BEGIN PERFORM SET_CONFIG('app.tenant', 'b', false); END $$", otherNames},
		{"DO $$ BEGIN SET ROLE bob; END $$", otherRole},
		{"UPDATE pg_settings SET setting = 'UTC' WHERE name = 'TimeZone'", otherValues},
		{"UPDATE pg_catalog.pg_settings SET setting = 'b' WHERE name = 'app.tenant'", otherNames},
	} {
		r := &hook.Record{SQL: c.sql, Text: sqltext.Analyze(c.sql)}
		if !mayHideSet(r) || sessionChange(r) != c.want {
			t.Errorf("%s: %v, %v, want %v", c.sql, mayHideSet(r), sessionChange(r), c.want)
		}
		if !touches(c.sql) {
			t.Errorf("%s leaves the tenant of a session believed", c.sql)
		}
	}
	for _, sql := range []string{"SELECT SET_CONFIG('app.tenant', 'b', false)", "SET\n app.tenant = 'b'", "/* x */ SET app.tenant = 'b'", "SELECT 1; SET app.tenant = 'b'", "DISCARD ALL"} {
		if !touches(sql) {
			t.Errorf("%s leaves the tenant of a session believed", sql)
		}
	}
	for _, sql := range []string{"SELECT * FROM settings WHERE id = $1", "UPDATE products SET price = 1", "INSERT INTO pg_setting VALUES (1)"} {
		if r := (&hook.Record{SQL: sql, Text: sqltext.Analyze(sql)}); touches(sql) || mayHideSet(r) {
			t.Errorf("%s sets nothing", sql)
		}
	}
}

package cachehook

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// openSessions opens an instance that logs in as the role and whose sessions follow
// the tenant.
func (d tenants) openSessions(t testing.TB, cfg Config, setting string, change func(*pgx.ConnConfig)) *instance {
	t.Helper()
	exec(t, d.dsn, `ALTER ROLE `+d.role+` LOGIN`)
	conn, err := pgx.ParseConfig(d.dsn)
	must(t, err)
	conn.User = d.role
	if change != nil {
		change(conn)
	}
	cfg.Tenant, cfg.Tables = askerOf, map[string]Rule{"orders": {}}
	pool := stdlib.OpenDB(*conn, SessionTenant(setting, askerOf))
	return openOver(t, postgres.New(postgres.Config{Conn: pool}), cfg, &gorm.Config{}, func(*Cache) {})
}

// Callers of many tenants share few connections, which are made anew all the time,
// also for those who wait for one.
func TestC09SessionsFollowTheTenant(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{"cached": {}, "plain": {Disabled: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := tenantDatabase(t).openSessions(t, cfg, "app.tenant", nil)
			ready(t, db)
			pool, err := db.DB.DB()
			must(t, err)
			pool.SetMaxOpenConns(2)
			pool.SetConnMaxLifetime(5 * time.Millisecond)
			want := map[string]string{"a": "apple,almond", "b": "banana,bean", "": "NULL"}
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 40 {
						tenant := []string{"a", "b", ""}[rand.IntN(3)]
						ctx := as(tenant)
						if tenant == "" && rand.IntN(2) == 0 {
							ctx = context.Background()
						}
						var got *string
						read := func(tx *gorm.DB) error { return tx.Raw(listOrders).Scan(&got).Error }
						var err error
						if i := db.WithContext(ctx); rand.IntN(4) == 0 {
							err = i.Transaction(read)
						} else {
							err = read(i.Clauses(Tags(string(rune('k' + rand.IntN(8))))))
						}
						if err != nil {
							t.Error(err)
							return
						}
						if got == nil && want[tenant] != "NULL" || got != nil && *got != want[tenant] {
							t.Errorf("%q reads %v", tenant, got)
							return
						}
					}
				})
			}
			wg.Wait()
			if st := db.cache.Stats(); name == "cached" && st.L1Hits == 0 {
				t.Errorf("nothing was served: %+v", st)
			}
		})
	}
}

func TestC09SessionsOfOneConnection(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t).openSessions(t, Config{Disabled: true}, "app.tenant", nil)
	pool, err := db.DB.DB()
	must(t, err)
	pool.SetMaxOpenConns(1)
	reads := func(ctx context.Context, want string) {
		t.Helper()
		equal(t, "read", db.under(ctx).text(t, listOrders), want)
	}
	a, b := as("a"), as("b")
	reads(context.Background(), "NULL")
	reads(a, "apple,almond")
	reads(context.Background(), "NULL")
	reads(WithTenant(a, "b"), "banana,bean")
	reads(WithTenant(a, ""), "NULL")
	// A transaction stays with the tenant of its beginning, and what it undoes does not
	// undo the session's.
	tx := db.WithContext(b).Begin()
	var got string
	must(t, tx.WithContext(a).Raw(listOrders).Scan(&got).Error)
	equal(t, "in the transaction", got, "banana,bean")
	must(t, tx.Exec(`SET LOCAL app.tenant = 'a'`).Error)
	must(t, tx.Rollback().Error)
	reads(b, "banana,bean")
	reads(a, "apple,almond")
	// What the program itself sets lasts for no more than its own statement.
	for _, set := range []string{`SET app.tenant = 'b'`, `RESET ALL`, ` reset app.tenant`, `SELECT set_config('app.tenant', 'b', false)`} {
		must(t, db.WithContext(a).Exec(set).Error)
		reads(a, "apple,almond")
	}
}

func TestC09SessionsHaveNoSearchPathOfTheTenant(t *testing.T) {
	t.Parallel()
	conn, err := pgx.ParseConfig(database(t))
	must(t, err)
	for _, setting := range []string{"", "Search_Path"} {
		pool := stdlib.OpenDB(*conn, SessionTenant(setting, askerOf))
		if err := pool.Ping(); err == nil || !strings.Contains(err.Error(), "must be a role or a setting") {
			t.Errorf("%q: %v", setting, err)
		}
		must(t, pool.Close())
	}
}

// Postgres takes names of a program's own with a dot alone. Without a check the first
// statements would fail with "driver: bad connection".
func TestC09SessionsNeedASettingThatPostgresKnows(t *testing.T) {
	t.Parallel()
	conn, err := pgx.ParseConfig(database(t))
	must(t, err)
	for setting, works := range map[string]bool{"tenant": false, "app.tenant": true, "application_name": true, "role": true} {
		pool := stdlib.OpenDB(*conn, SessionTenant(setting, askerOf))
		err := pool.Ping()
		if works {
			must(t, err)
		} else if err == nil || !strings.Contains(err.Error(), "has a dot in its name") || !strings.Contains(err.Error(), "unrecognized configuration parameter") {
			t.Errorf("%q: %v", setting, err)
		}
		must(t, pool.Close())
	}
}

// tracing is a program's own tracer.
type tracing struct{ n int }

func (c *tracing) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n++
	return ctx
}

func (c *tracing) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestC09SessionsAreRolesOrFail(t *testing.T) {
	t.Parallel()
	d := tenantDatabase(t)
	other := d.role + "_other"
	exec(t, d.dsn, `DROP POLICY mine ON orders`, `CREATE ROLE `+other, `GRANT `+other+` TO `+d.role,
		`CREATE POLICY of_other ON orders USING (tenant = 'b' AND current_user = '`+other+`')`)
	tenants{d.dsn, other}.grant(t)
	var own tracing
	db := d.openSessions(t, Config{}, "role", func(cfg *pgx.ConnConfig) { cfg.Tracer = &own })
	pool, err := db.DB.DB()
	must(t, err)
	pool.SetMaxOpenConns(1)
	for range 2 {
		equal(t, "the other reads", db.under(as(other)).text(t, listOrders), "banana,bean")
		equal(t, "nobody reads", db.under(as("")).text(t, listOrders), "NULL")
		traced := own.n
		err := db.under(as("no_such_role")).Raw(listOrders).Scan(new(string)).Error
		if err == nil || !strings.Contains(err.Error(), "set role to the tenant") || !strings.Contains(err.Error(), "no_such_role") {
			t.Errorf("a role that does not exist: %v", err)
		}
		equal(t, "statements traced", own.n, traced+1)
	}
	if own.n < 4 {
		t.Errorf("the program's tracer was told of %d statements", own.n)
	}
}

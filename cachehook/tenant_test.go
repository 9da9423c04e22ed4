package cachehook

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// askerKey is where the tests' program keeps its tenant.
type askerKey struct{}

func as(tenant string) context.Context {
	return context.WithValue(context.Background(), askerKey{}, tenant)
}

func askerOf(ctx context.Context) (tenant string, ok bool) {
	tenant, ok = ctx.Value(askerKey{}).(string)
	return tenant, ok
}

// order is a table of several tenants.
type order struct {
	ID     int64
	Tenant string
	Item   string
}

// tenants is a database with the table orders of tenants "a" and "b", under a
// policy, and a role that owns nothing and may read and write all.
type tenants struct{ dsn, role string }

func tenantDatabase(t testing.TB, statements ...string) tenants {
	t.Helper()
	db := tenants{dsn: database(t), role: fmt.Sprintf("app%d", schemas.n.Add(1))}
	exec(t, db.dsn, append([]string{
		`CREATE TABLE orders (id bigint PRIMARY KEY, tenant text, item text)`,
		`INSERT INTO orders VALUES (1, 'a', 'apple'), (2, 'a', 'almond'), (3, 'b', 'banana'), (4, 'b', 'bean')`,
		`ALTER TABLE orders ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY mine ON orders USING (tenant = current_setting('app.tenant', true))`,
		`CREATE ROLE ` + db.role,
	}, statements...)...)
	db.grant(t)
	return db
}

// grant lets the role use what has been made.
func (d tenants) grant(t testing.TB) {
	t.Helper()
	exec(t, d.dsn, `DO $$ BEGIN EXECUTE 'GRANT ALL ON SCHEMA ' || current_schema || ' TO `+d.role+`';
		EXECUTE 'GRANT ALL ON ALL TABLES IN SCHEMA ' || current_schema || ' TO `+d.role+`'; END $$`)
}

// root is whom no policy applies to.
const root = "root"

// open opens an instance whose pool prepares each session for who asks.
func (d tenants) open(t testing.TB, cfg Config) *instance {
	t.Helper()
	return d.openAs(t, cfg, func(ctx context.Context, conn *pgx.Conn) error {
		tenant, _ := askerOf(ctx)
		role := d.role
		if tenant == root {
			role = "none"
		}
		_, err := conn.Exec(ctx, `SELECT set_config('role', $1, false), set_config('app.tenant', $2, false)`, role, tenant)
		return err
	})
}

func (d tenants) openAs(t testing.TB, cfg Config, prepare func(context.Context, *pgx.Conn) error) *instance {
	t.Helper()
	conn, err := pgx.ParseConfig(d.dsn)
	must(t, err)
	pool := stdlib.OpenDB(*conn, stdlib.OptionAfterConnect(prepare), stdlib.OptionResetSession(prepare))
	if cfg.Tenant == nil {
		cfg.Tenant = askerOf
	}
	if cfg.Tables == nil {
		cfg.Tables = map[string]Rule{"orders": {}}
	}
	return openOver(t, postgres.New(postgres.Config{Conn: pool}), cfg, &gorm.Config{}, func(*Cache) {})
}

// under is the instance with a context.
func (i *instance) under(ctx context.Context) *instance {
	return &instance{i.WithContext(ctx), i.cache, i.seen}
}

// pair is a cached instance and one without a cache on the same database.
type pair struct{ cached, plain *instance }

func (d tenants) pair(t testing.TB, cfg Config) pair {
	t.Helper()
	p := pair{d.open(t, cfg), d.open(t, Config{Disabled: true})}
	ready(t, p.cached)
	return p
}

// same reads once and compares with the database; it tells whether the cache
// served it.
func (p pair) same(t testing.TB, ctx context.Context, query string, args ...any) (answer string, served bool) {
	t.Helper()
	p.cached.catalogLoaded(t) // a busy server may take longer than a read waits
	before := p.cached.seen.queries.Load()
	answer = p.cached.under(ctx).text(t, query, args...)
	served = p.cached.seen.queries.Load() == before
	if want := p.plain.under(ctx).text(t, query, args...); answer != want {
		t.Fatalf("%s as %v: %s, want %s", query, ctx.Value(askerKey{}), answer, want)
	}
	return answer, served
}

// serves reads twice and reports whether the second was served.
func (p pair) serves(t testing.TB, ctx context.Context, query string, args ...any) bool {
	t.Helper()
	p.same(t, ctx, query, args...)
	_, served := p.same(t, ctx, query, args...)
	return served
}

const (
	listOrders = `SELECT string_agg(item, ',' ORDER BY id) FROM orders`
	oneOrder   = `SELECT item FROM orders WHERE id = ?`
)

func TestC09TenantsUnderRowLevelSecurity(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := tenantDatabase(t)
		p := db.pair(t, cfg)
		for round := range 3 {
			for tenant, want := range map[string]string{"a": "apple,almond", "b": "banana,bean"} {
				got, served := p.same(t, as(tenant), listOrders)
				equal(t, tenant+" reads", got, want)
				equal(t, tenant+" is served", served, round > 0)
				got, served = p.same(t, as(tenant), oneOrder, 3)
				if want := map[string]string{"a": "NULL", "b": "banana"}[tenant]; got != want {
					t.Fatalf("%s reads order 3: %s", tenant, got)
				}
				equal(t, tenant+" is served order 3", served, round > 0)
			}
		}
		bypassed := p.cached.cache.Stats().Bypasses["tenant"]
		for _, nobody := range []context.Context{context.Background(), as(""), WithTenant(as("a"), "")} {
			equal(t, "served without a tenant", p.serves(t, nobody, listOrders), false)
		}
		equal(t, "reads that had no tenant", p.cached.cache.Stats().Bypasses["tenant"]-bypassed, 6)
		// A write shows to both, for the table is everybody's.
		must(t, p.cached.under(as(root)).Model(&order{ID: 1}).Update("tenant", "b").Error)
		for _, tenant := range []string{"a", "b"} {
			if _, served := p.same(t, as(tenant), listOrders); served {
				t.Fatalf("%s was served from before the write", tenant)
			}
			equal(t, tenant+" is served again", p.serves(t, as(tenant), listOrders), true)
		}
	})
}

func TestC09AnotherInstanceServesNoOtherTenant(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	db := tenantDatabase(t)
	first, second := db.pair(t, Config{Redis: rdb, Name: name}), db.pair(t, Config{Redis: rdb, Name: name})
	first.same(t, as("a"), listOrders)
	eventually(t, "the fill", 30*time.Second, func() bool { return len(keysOf(t, rdb, "infra:"+name+":cache:e:*")) == 1 })
	if _, served := second.same(t, as("b"), listOrders); served {
		t.Fatal("b was served what a has read")
	}
	if _, served := second.same(t, as("a"), listOrders); !served {
		t.Fatal("a was not served from Redis")
	}
}

// By contexts, and where the database knows a tenant as a role.
func TestC09TenantsAreRoles(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t)
	other := db.role + "_other"
	exec(t, db.dsn, `CREATE ROLE `+other, `DROP POLICY mine ON orders`,
		`CREATE POLICY by_name ON orders TO `+db.role+` USING (tenant = 'a' AND current_user = '`+db.role+`')`,
		`CREATE POLICY all_of_b ON orders TO `+other+` USING (tenant = 'b')`)
	tenants{db.dsn, other}.grant(t)
	p := pair{}
	for _, i := range []struct {
		at  **instance
		cfg Config
	}{{&p.cached, Config{}}, {&p.plain, Config{Disabled: true}}} {
		*i.at = db.openAs(t, i.cfg, func(ctx context.Context, conn *pgx.Conn) error {
			role, _ := ctx.Value(tenantKey{}).(tenant)
			if role.key == "" {
				role.key = "none"
			}
			_, err := conn.Exec(ctx, `SELECT set_config('role', $1, false)`, role.key)
			return err
		})
	}
	for _, c := range []struct {
		role, want string
		served     bool
	}{{db.role, "apple,almond", false}, {other, "banana,bean", false}, {db.role, "apple,almond", true}, {other, "banana,bean", true}} {
		got, served := p.same(t, WithTenant(context.Background(), c.role), listOrders)
		equal(t, c.role+" reads", got, c.want)
		equal(t, c.role+" is served", served, c.served)
	}
	// The superuser, to whom no policy applies, is not cached for without a tenant either:
	// the pool may have switched roles.
	equal(t, "without a tenant", p.serves(t, context.Background(), listOrders), false)
}

func TestC09PoliciesReadOtherTables(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := tenantDatabase(t,
			`CREATE TABLE teams (name text PRIMARY KEY, open boolean)`, `INSERT INTO teams VALUES ('a', true), ('b', true)`,
			`CREATE TABLE memberships (member text, team text REFERENCES teams ON DELETE CASCADE)`, `INSERT INTO memberships VALUES ('ann', 'a'), ('bob', 'b')`,
			`DROP POLICY mine ON orders`,
			`CREATE POLICY members ON orders USING (EXISTS (SELECT FROM memberships m WHERE m.member = current_setting('app.tenant') AND m.team = orders.tenant))`,
			`ALTER TABLE memberships ENABLE ROW LEVEL SECURITY`,
			`CREATE POLICY of_open_teams ON memberships USING (team IN (SELECT name FROM teams WHERE open))`,
		)
		p := db.pair(t, cfg)
		check := func(what string, want string, served bool) {
			t.Helper()
			got, was := p.same(t, as("ann"), listOrders)
			equal(t, "ann reads "+what, got, want)
			equal(t, "ann is served "+what, was, served)
		}
		check("at first", "apple,almond", false)
		check("again", "apple,almond", true)
		must(t, p.cached.Exec(`INSERT INTO memberships VALUES ('ann', 'b')`).Error)
		check("when she has joined b", "apple,almond,banana,bean", false)
		check("again", "apple,almond,banana,bean", true)
		must(t, p.cached.Exec(`UPDATE teams SET open = false WHERE name = 'a'`).Error)
		check("when a is closed", "banana,bean", false)
		check("again", "banana,bean", true)
		must(t, p.cached.Exec(`DELETE FROM teams WHERE name = 'b'`).Error)
		check("when b is no more", "NULL", false)
		check("again", "NULL", true)
		must(t, p.cached.Exec(`UPDATE products SET price = 0`).Error)
		check("when something else is written", "NULL", true)
	})
}

func TestC09RowsUnderRowLevelSecurity(t *testing.T) {
	t.Parallel()
	p := tenantDatabase(t).pair(t, Config{})
	for _, id := range []int{1, 2} {
		equal(t, "served", p.serves(t, as("a"), oneOrder, id), true)
	}
	equal(t, "served that there is none", p.serves(t, as("a"), oneOrder, 3), true)
	must(t, p.cached.under(as("a")).Model(&order{ID: 1}).Update("item", "avocado").Error)
	if _, served := p.same(t, as("a"), oneOrder, 2); !served {
		t.Error("a write of another row emptied this one")
	}
	if _, served := p.same(t, as("a"), oneOrder, 1); served {
		t.Error("served from before the write")
	}
	// What was not found comes to be found by another tenant's write.
	must(t, p.cached.under(as("b")).Delete(&order{ID: 3}).Error)
	must(t, p.cached.under(as("a")).Create(&order{ID: 3, Tenant: "a", Item: "apricot"}).Error)
	got, _ := p.same(t, as("a"), oneOrder, 3)
	equal(t, "a finds", got, "apricot")
	err := p.cached.under(as("b")).First(&order{}, 3).Error
	if !errors.Is(err, gorm.ErrRecordNotFound) {
		t.Errorf("b finds a's: %v", err)
	}
}

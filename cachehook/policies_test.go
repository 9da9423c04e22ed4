package cachehook

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
)

// version is the server's, such as 150003.
func version(t testing.TB, i *instance) int {
	t.Helper()
	n, err := strconv.Atoi(i.text(t, `SELECT current_setting('server_version_num')`))
	must(t, err)
	return n
}

// A view reads as its owner, to whom policies may not apply: then it is the same
// for all. One of security_invoker reads as whoever asks, also inside another.
func TestC09ViewsUnderRowLevelSecurity(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t,
		`CREATE VIEW of_root AS SELECT * FROM orders`,
		`CREATE VIEW of_another AS SELECT * FROM orders`,
		`CREATE VIEW of_nested AS SELECT * FROM of_another`,
		`CREATE VIEW by_itself AS SELECT * FROM orders WHERE tenant = current_setting('app.tenant', true)`,
		`CREATE VIEW at_a_time AS SELECT * FROM orders WHERE tenant = current_setting('app.tenant', true) AND now() > '2000-01-01'`,
		`CREATE TABLE own (id bigint, tenant text, item text)`, `INSERT INTO own VALUES (1, 'a', 'x'), (2, 'b', 'y')`,
		`ALTER TABLE own ENABLE ROW LEVEL SECURITY`, `CREATE POLICY mine ON own USING (tenant = current_setting('app.tenant', true))`,
		`CREATE VIEW of_owner AS SELECT * FROM own`, `CREATE VIEW of_member AS SELECT * FROM own`,
	)
	owner, member := db.role+"_owner", db.role+"_member"
	exec(t, db.dsn, `CREATE ROLE `+owner, `CREATE ROLE `+member)
	tenants{db.dsn, owner}.grant(t)
	tenants{db.dsn, member}.grant(t)
	exec(t, db.dsn, `GRANT `+owner+` TO `+member, `ALTER TABLE own OWNER TO `+owner, `ALTER VIEW of_owner OWNER TO `+owner,
		`ALTER VIEW of_member OWNER TO `+member, `ALTER VIEW of_another OWNER TO `+owner)
	p := db.pair(t, Config{Tables: map[string]Rule{
		"of_root": {}, "of_another": {}, "of_nested": {}, "of_owner": {}, "of_member": {}, "by_itself": {}, "at_a_time": {}, "invoker": {}, "around_invoker": {},
	}})
	type view struct{ name, asA, asB, forAll string } // forAll: what anybody reads, or ""
	check := func(views ...view) {
		t.Helper()
		for _, v := range views {
			query := strings.Replace(listOrders, "orders", v.name, 1)
			equal(t, v.name+" is served without a tenant", p.serves(t, context.Background(), query), v.forAll != "")
			for tenant, want := range map[string]string{"a": v.asA, "b": v.asB} {
				got, _ := p.same(t, as(tenant), query)
				if v.forAll != "" {
					want = v.forAll
				}
				equal(t, tenant+" reads "+v.name, got, want)
				equal(t, tenant+" is served "+v.name, p.serves(t, as(tenant), query), true)
			}
		}
	}
	check(
		view{"of_root", "", "", "apple,almond,banana,bean"},
		view{"of_another", "apple,almond", "banana,bean", ""},
		view{"of_nested", "apple,almond", "banana,bean", ""},
		view{"of_owner", "", "", "x,y"},
		view{"by_itself", "apple,almond", "banana,bean", ""},
		view{"of_member", "x,y", "x,y", ""}, // it reads as the owner, while it is a member of it
	)
	equal(t, "a view that depends on the time is served", p.serves(t, as("a"), strings.Replace(listOrders, "orders", "at_a_time", 1)), false)
	must(t, p.cached.under(as(root)).Exec(`ALTER TABLE own FORCE ROW LEVEL SECURITY`).Error)
	check(view{"of_owner", "x", "y", ""}, view{"of_member", "x", "y", ""})
	must(t, p.cached.under(as(root)).Exec(`ALTER TABLE own NO FORCE ROW LEVEL SECURITY`).Error)
	check(view{"of_owner", "", "", "x,y"})
	must(t, p.cached.under(as(root)).Exec(`ALTER VIEW of_owner OWNER TO `+db.role).Error)
	check(view{"of_owner", "x", "y", ""})
	if version(t, p.plain) < 150000 {
		return
	}
	exec(t, db.dsn, `CREATE VIEW invoker WITH (security_invoker = on) AS SELECT * FROM orders`, `CREATE VIEW around_invoker AS SELECT * FROM invoker`)
	db.grant(t)
	must(t, p.cached.under(as(root)).Exec(`ALTER VIEW of_root SET (security_invoker = true)`).Error)
	check(
		view{"invoker", "apple,almond", "banana,bean", ""},
		view{"around_invoker", "apple,almond", "banana,bean", ""},
		view{"of_root", "apple,almond", "banana,bean", ""},
	)
	must(t, p.cached.under(as(root)).Exec(`ALTER VIEW of_root RESET (security_invoker)`).Error)
	check(view{"of_root", "", "", "apple,almond,banana,bean"})
}

// The policies are those of the table that is named, not of its children or
// parents.
func TestC09PartitionsUnderRowLevelSecurity(t *testing.T) {
	t.Parallel()
	p := tenantDatabase(t,
		`CREATE TABLE parted (id bigint, tenant text, item text) PARTITION BY RANGE (id)`,
		`CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)`, `CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)`,
		`INSERT INTO parted VALUES (1, 'a', 'x'), (2, 'b', 'y'), (11, 'a', 'z')`,
		`ALTER TABLE parted_1 ENABLE ROW LEVEL SECURITY`, `CREATE POLICY mine ON parted_1 USING (tenant = current_setting('app.tenant', true))`,
		`CREATE TABLE parent (id bigint, tenant text, item text)`, `CREATE TABLE child () INHERITS (parent)`,
		`INSERT INTO parent VALUES (1, 'a', 'x')`, `INSERT INTO child VALUES (2, 'b', 'y')`,
		`ALTER TABLE parent ENABLE ROW LEVEL SECURITY`, `CREATE POLICY mine ON parent USING (tenant = current_setting('app.tenant', true))`,
	).pair(t, Config{Tables: map[string]Rule{"parted": {}, "parted_1": {}, "parted_2": {}, "parent": {}, "child": {}}})
	for _, c := range []struct {
		table, asA, asB string
		forAll          bool
	}{
		{"parted", "x,y,z", "x,y,z", true},
		{"parted_1", "x", "y", false},
		{"parted_2", "z", "z", true},
		{"parent", "x", "y", false},
		{"child", "y", "y", true},
	} {
		query := strings.Replace(listOrders, "orders", c.table, 1)
		equal(t, c.table+" is served without a tenant", p.serves(t, context.Background(), query), c.forAll)
		for tenant, want := range map[string]string{"a": c.asA, "b": c.asB} {
			got, _ := p.same(t, as(tenant), query)
			equal(t, tenant+" reads "+c.table, got, want)
			equal(t, tenant+" is served "+c.table, p.serves(t, as(tenant), query), true)
		}
	}
	must(t, p.cached.under(as(root)).Exec(`UPDATE parted SET item = 'w' WHERE id = 1`).Error)
	got, _ := p.same(t, as("a"), `SELECT item FROM parted_1`)
	equal(t, "the partition after a write of the parent", got, "w")
}

func TestC09PoliciesComeAndGo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := tenantDatabase(t, `CREATE TABLE plain (id bigint, tenant text, item text)`, `INSERT INTO plain VALUES (1, 'a', 'x'), (2, 'b', 'y')`,
			`CREATE TABLE allowed (tenant text)`, `INSERT INTO allowed VALUES ('a')`)
		cfg.Tables = map[string]Rule{"plain": {}}
		p := db.pair(t, cfg)
		query := strings.Replace(listOrders, "orders", "plain", 1)
		nobody := context.Background()
		equal(t, "served", p.serves(t, nobody, query), true)
		for _, step := range []struct {
			ddl, asA, asB string
			forAll        bool
		}{
			{`ALTER TABLE plain ENABLE ROW LEVEL SECURITY`, "NULL", "NULL", false},
			{`CREATE POLICY mine ON plain USING (tenant = current_setting('app.tenant', true))`, "x", "y", false},
			{`ALTER POLICY mine ON plain USING (tenant <> current_setting('app.tenant', true))`, "y", "x", false},
			{`CREATE POLICY more ON plain FOR SELECT USING (tenant IN (SELECT tenant FROM allowed))`, "x,y", "x", false},
			{`DROP POLICY mine ON plain`, "x", "x", false},
			{`ALTER TABLE plain DISABLE ROW LEVEL SECURITY`, "x,y", "x,y", true},
		} {
			must(t, p.cached.under(as(root)).Exec(step.ddl).Error)
			for tenant, want := range map[string]string{"a": step.asA, "b": step.asB} {
				got, served := p.same(t, as(tenant), query)
				equal(t, tenant+" reads after "+step.ddl, got, want)
				equal(t, tenant+" is served after "+step.ddl, served, false)
				equal(t, tenant+" is served again after "+step.ddl, p.serves(t, as(tenant), query), true)
			}
			equal(t, "nobody is served after "+step.ddl, p.serves(t, nobody, query), step.forAll)
		}
	})
}

// A policy that psql changes is noticed when the catalogue is read again.
func TestC09PolicyChangedPastThePlugin(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t)
	p := db.pair(t, Config{})
	equal(t, "served", p.serves(t, as("a"), listOrders), true)
	exec(t, db.dsn, `ALTER POLICY mine ON orders USING (tenant <> current_setting('app.tenant', true))`)
	p.cached.cache.catalog.forget() // as if a minute had passed
	got, served := p.same(t, as("a"), listOrders)
	equal(t, "a reads", got, "banana,bean")
	equal(t, "served", served, false)
}

// What a policy depends on besides tables and who asks keeps its table from being
// cached.
func TestC09PoliciesThatCannotBeUnderstood(t *testing.T) {
	t.Parallel()
	made := []string{
		`CREATE TABLE teams (name text)`, `INSERT INTO teams VALUES ('a'), ('b')`, `CREATE SEQUENCE numbers`, `GRANT SELECT ON numbers TO PUBLIC`,
		`CREATE FUNCTION asker() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$`,
		`CREATE FUNCTION known(text) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql AS $$ SELECT EXISTS (SELECT FROM teams WHERE name = $1) $$`,
		`DROP POLICY mine ON orders`,
	}
	for name, c := range map[string]struct {
		policy    string
		functions map[string][]string
		want      bool
	}{
		"time":                   {`tenant = current_setting('app.tenant', true) AND now() > '2000-01-01'`, nil, false},
		"chance":                 {`tenant = current_setting('app.tenant', true) AND random() < 2`, nil, false},
		"a session":              {`tenant = current_setting('app.tenant', true) AND pg_backend_pid() > 0`, nil, false},
		"a system table":         {`tenant = current_setting('app.tenant', true) AND EXISTS (SELECT FROM pg_roles)`, nil, false},
		"a sequence":             {`tenant = current_setting('app.tenant', true) AND (SELECT last_value FROM numbers) > 0`, nil, false},
		"a system table of old":  {`tenant = current_setting('app.tenant', true) AND EXISTS (SELECT FROM pg_class)`, nil, false},
		"a function":             {`tenant = asker()`, nil, false},
		"a declared function":    {`tenant = asker()`, map[string][]string{"asker": {}}, true},
		"a function that reads":  {`tenant = current_setting('app.tenant') AND known(tenant)`, nil, false},
		"a declared one":         {`tenant = current_setting('app.tenant') AND known(tenant)`, map[string][]string{"known": {"teams"}}, true},
		"a table and a function": {`EXISTS (SELECT FROM teams WHERE name = tenant AND name = asker())`, map[string][]string{"asker": {}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := tenantDatabase(t, append(made[:len(made):len(made)], `CREATE POLICY one ON orders USING (`+c.policy+`)`)...).pair(t, Config{Functions: c.functions})
			equal(t, "served", p.serves(t, as("a"), listOrders), c.want)
			if !c.want {
				if n := p.cached.cache.Stats().Bypasses["table"]; n != 2 {
					t.Errorf("%d bypasses: %v", n, p.cached.cache.Stats().Bypasses)
				}
				return
			}
			must(t, p.cached.under(as(root)).Exec(`DELETE FROM teams WHERE name = 'a'`).Error)
			p.same(t, as("a"), listOrders)
		})
	}
}

// Tables whose policies look into each other are read in a circle, and end.
func TestC09PoliciesInACircle(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t,
		`CREATE TABLE teams (name text)`, `INSERT INTO teams VALUES ('a'), ('b')`,
		`CREATE FUNCTION teams_of(text) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql AS $$ SELECT EXISTS (SELECT FROM teams WHERE name = $1) $$`,
		`CREATE FUNCTION orders_of(text) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql AS $$ SELECT EXISTS (SELECT FROM orders WHERE tenant = $1) $$`,
		`ALTER POLICY mine ON orders USING (tenant = current_setting('app.tenant') AND teams_of(tenant))`,
		`ALTER TABLE teams ENABLE ROW LEVEL SECURITY`, `CREATE POLICY used ON teams USING (orders_of(name))`,
	)
	p := db.pair(t, Config{Functions: map[string][]string{"teams_of": {"teams"}, "orders_of": {"orders"}}})
	equal(t, "served", p.serves(t, as("a"), listOrders), true)
	must(t, p.cached.under(as(root)).Exec(`DELETE FROM teams WHERE name = 'a'`).Error)
	got, _ := p.same(t, as("a"), listOrders)
	equal(t, "a reads when it is no team", got, "NULL")
}

// A function that is declared for the sake of a policy, and asks who asks, is not
// the same for all where a statement calls it.
func TestC09FunctionsThatAskWhoAsks(t *testing.T) {
	t.Parallel()
	p := tenantDatabase(t,
		`CREATE FUNCTION asker() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$`,
		`CREATE FUNCTION role_of(products) RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_user::text $$`,
		`CREATE FUNCTION parsed() RETURNS text STABLE LANGUAGE sql BEGIN ATOMIC SELECT current_setting('app.tenant', true); END`,
		`CREATE FUNCTION constant() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'c' $$`,
	).pair(t, Config{Tables: map[string]Rule{"products": {}}, Functions: map[string][]string{"asker": {}, "role_of": {}, "constant": {}, "parsed": {}}})
	for query, forAll := range map[string]bool{
		`SELECT asker() FROM products WHERE id = 1`:          false,
		`SELECT products.role_of FROM products WHERE id = 1`: false,
		`SELECT parsed() FROM products WHERE id = 1`:         false,
		`SELECT constant() FROM products WHERE id = 1`:       true,
	} {
		equal(t, query+" without a tenant", p.serves(t, context.Background(), query), forAll)
		equal(t, query+" as a", p.serves(t, as("a"), query), true)
		equal(t, query+" as b", p.serves(t, as("b"), query), true)
	}
}

// A setting that stays with a connection may be what a policy asks for.
func TestC09SettingsOfASessionEndWhatIsCachedUnderPolicies(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(db *gorm.DB) error{
		"SET": func(db *gorm.DB) error { return db.Exec(`SET app.tenant = 'b'`).Error },
		"set_config": func(db *gorm.DB) error {
			return db.Raw(`SELECT set_config('app.tenant', ?, false)`, "b").Scan(new(string)).Error
		},
		"a function": func(db *gorm.DB) error { return db.Exec(`SELECT set_tenant('b')`).Error },
		"on a connection": func(db *gorm.DB) error {
			return db.Connection(func(c *gorm.DB) error { return c.Exec(`SET app.tenant = 'b'`).Error })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := tenantDatabase(t,
				`CREATE FUNCTION set_tenant(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$`,
				`CREATE FUNCTION set_tenant_here(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, true) $$`)
			i := db.openAs(t, Config{Tables: map[string]Rule{"orders": {}, "products": {}}}, func(ctx context.Context, conn *pgx.Conn) error {
				_, err := conn.Exec(ctx, `SELECT set_config('role', $1, false)`, db.role)
				return err
			})
			ready(t, i)
			ctx := as("a")
			must(t, i.Transaction(func(tx *gorm.DB) error {
				must(t, tx.Exec(`SELECT set_tenant_here('a')`).Error)
				return tx.Exec(`SET LOCAL app.tenant = 'a'`).Error
			}))
			i.catalogLoaded(t)
			// With its schema, for a bare name is ambiguous when the settings are changed.
			schema := i.text(t, `SELECT current_schema`)
			list, other := `SELECT string_agg(item, ',') FROM `+schema+`.orders`, `SELECT name FROM `+schema+`.products WHERE id = 1`
			i.under(ctx).text(t, list)
			before := i.seen.queries.Load()
			i.under(ctx).text(t, list)
			equal(t, "queries after SET LOCAL", i.seen.queries.Load(), before)
			must(t, set(i.DB))
			i.catalogLoaded(t)
			before = i.seen.queries.Load()
			i.under(ctx).text(t, list)
			i.under(ctx).text(t, list)
			equal(t, "queries afterwards", i.seen.queries.Load(), before+2)
			i.under(ctx).text(t, other)
			n := i.seen.queries.Load()
			i.under(ctx).text(t, other)
			equal(t, "queries of other tables", i.seen.queries.Load(), n)
		})
	}
}

package cachehook

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func TestC09KeysOfTenantsDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[string]string)
	for _, who := range []tenant{
		{}, {"", true}, {"a", true}, {"a\x00", true}, {"ab", true}, {"a\x00b", true}, {"a\x03set", true}, {"\x03set", true}, {"1", true}, {"\x00", true}, {"set", true},
	} {
		for _, kind := range []string{"set", "string", "", "k"} {
			for _, key := range []string{"", "k", "bk", "\x01"} {
				for _, tags := range [][]string{nil, {""}, {"a", "b"}, {"ab"}, {"\x00"}} {
					name := fmt.Sprintf("%+v %q %q %q", who, kind, key, tags)
					made := string(handKey(who, kind, key, tags))
					if other, twice := seen[made]; twice {
						t.Errorf("%s and %s have one key", other, name)
					}
					seen[made] = name
				}
			}
		}
	}
}

func TestC09ValuesByHandAreEachTenantsOwn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		cfg.Tenant = askerOf
		dsn := database(t)
		db := open(t, dsn, cfg)
		other := db
		if cfg.Redis != nil {
			other = open(t, dsn, cfg)
		}
		ready(t, db, other)
		owners := []struct {
			name string
			ctx  context.Context
		}{
			{"nobody", context.Background()}, {"a", as("a")}, {"b", as("b")}, {"empty", as("")}, {"c", WithTenant(as("a"), "c")},
		}
		loads := 0
		fetch := func(i *instance, ctx context.Context, name string) string {
			v, err := Fetch(ctx, i.cache, "f", time.Minute, []string{"tag"}, func(context.Context) (string, error) { loads++; return name, nil })
			must(t, err)
			return v
		}
		for _, o := range owners {
			if v, found := db.cache.Get(o.ctx, "k"); found {
				t.Errorf("%s finds what %s has set", o.name, v)
			}
			must(t, db.cache.Set(o.ctx, "k", []byte(o.name), time.Minute, "tag"))
			equal(t, o.name+" fetches", fetch(db, o.ctx, o.name), o.name)
		}
		equal(t, "loads", loads, len(owners))
		for _, i := range []*instance{db, other} {
			for _, o := range owners {
				v, _ := i.cache.Get(o.ctx, "k")
				equal(t, o.name+" gets", string(v), o.name)
				equal(t, o.name+" fetches again", fetch(i, o.ctx, o.name), o.name)
			}
		}
		v, _ := db.cache.Get(WithTenant(as("a"), ""), "k")
		equal(t, "the key that is empty by context", string(v), "empty")
		must(t, db.cache.Invalidate(as("b"), "tag"))
		for _, o := range owners {
			if v, found := db.cache.Get(o.ctx, "k"); found {
				t.Errorf("%s finds %s after the tag was invalidated", o.name, v)
			}
		}
	})
}

// What is made of a table under row-level security is kept only for a tenant.
func TestC09ValuesByHandOfTablesUnderPolicies(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t).open(t, Config{})
	ready(t, db)
	db.catalogLoaded(t)
	loads := 0
	for _, o := range []struct {
		ctx  context.Context
		kept bool
	}{{context.Background(), false}, {as(""), false}, {as("a"), true}} {
		must(t, db.cache.Set(o.ctx, "k", []byte("v"), time.Minute, Table("orders")))
		_, found := db.cache.Get(o.ctx, "k")
		equal(t, "found", found, o.kept)
		for range 2 {
			_, err := Fetch(o.ctx, db.cache, "f", time.Minute, []string{Table("orders")}, func(context.Context) (int, error) { loads++; return 1, nil })
			must(t, err)
		}
	}
	equal(t, "loads", loads, 5)
	equal(t, "bypasses", db.cache.Stats().Bypasses["tenant"], 6)
	must(t, db.under(as("b")).Model(&order{ID: 3}).Update("item", "x").Error)
	_, found := db.cache.Get(as("a"), "k")
	equal(t, "found after a write of the table", found, false)
}

func TestC09FlightsAreEachTenantsOwn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		p := tenantDatabase(t).pair(t, cfg)
		p.same(t, as("a"), oneOrder, 1) // the catalogue has been read
		parked, release := p.cached.seen.park()
		defer release()
		first := make(chan string, 1)
		go func() { first <- p.cached.under(as("a")).text(t, listOrders) }()
		<-parked
		got, _ := p.same(t, as("b"), listOrders) // it does not wait for a's
		equal(t, "b reads", got, "banana,bean")
		release()
		equal(t, "a reads", <-first, "apple,almond")
		equal(t, "shared", p.cached.seen.count(hook.Shared), 0)
	})
}

// What is read anew in the background is read for the tenant whose entry it is.
func TestC09RefreshesAreEachTenantsOwn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		cfg.Tables = map[string]Rule{"orders": {TTL: time.Minute, StaleFor: time.Hour}}
		db := tenantDatabase(t)
		p := db.pair(t, cfg)
		by := pass(p.cached.cache)
		for _, tenant := range []string{"a", "b"} {
			p.same(t, as(tenant), listOrders)
		}
		exec(t, db.dsn, `UPDATE orders SET item = item || '!'`)
		by(2 * time.Minute)
		for tenant, want := range map[string][2]string{"a": {"apple,almond", "apple!,almond!"}, "b": {"banana,bean", "banana!,bean!"}} {
			equal(t, tenant+" reads what is stale", p.cached.under(as(tenant)).text(t, listOrders), want[0])
			eventually(t, tenant+"'s refresh", 30*time.Second, func() bool {
				got := p.cached.under(as(tenant)).text(t, listOrders)
				if got != want[0] && got != want[1] {
					t.Fatalf("%s reads %s", tenant, got)
				}
				return got == want[1]
			})
		}
	})
}

func TestC09WarmingForATenant(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t)
	warm := func(with func(context.Context) context.Context) WarmQuery {
		return WarmQuery{Name: "list", Run: func(db *gorm.DB) error {
			return db.WithContext(with(db.Statement.Context)).Raw(listOrders).Scan(new(string)).Error
		}}
	}
	p := db.pair(t, Config{Warm: []WarmQuery{
		warm(func(ctx context.Context) context.Context { return context.WithValue(ctx, askerKey{}, "a") }),
		warm(func(ctx context.Context) context.Context { return ctx }),
	}})
	got, served := p.same(t, as("a"), listOrders)
	equal(t, "a reads", got, "apple,almond")
	equal(t, "a is served", served, true)
	_, served = p.same(t, as("b"), listOrders)
	equal(t, "b is served", served, false)
	_, served = p.same(t, context.Background(), listOrders)
	equal(t, "nobody is served", served, false)
}

func TestC09SharedTables(t *testing.T) {
	t.Parallel()
	db := tenantDatabase(t, `CREATE TABLE notes (id bigint PRIMARY KEY, text text)`, `INSERT INTO notes VALUES (1, 'n')`)
	p := db.pair(t, Config{Tables: map[string]Rule{"products": {Shared: true}, "orders": {Shared: true}, "notes": {}}})
	for query, shared := range map[string]bool{
		`SELECT name FROM products WHERE id = 1`:                  true,
		`SELECT text FROM notes WHERE id = 1`:                     false,
		`SELECT text || name FROM notes JOIN products USING (id)`: false,
		listOrders: false,
		`SELECT string_agg(item, ',') FROM orders JOIN products USING (id)`: false,
	} {
		p.same(t, as("a"), query)
		_, served := p.same(t, as("b"), query)
		equal(t, query+": b is served what a has read", served, shared)
		_, served = p.same(t, as("b"), query)
		equal(t, query+": b is served its own", served, true)
	}
	var a, b product // a clause changes nothing about it
	must(t, p.cached.under(as("a")).Clauses(TTL(time.Second)).First(&a, 2).Error)
	before := p.cached.seen.queries.Load()
	must(t, p.cached.under(as("b")).Clauses(TTL(time.Second)).First(&b, 2).Error)
	equal(t, "queries", p.cached.seen.queries.Load(), before)
}

package infra_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/resolver"
)

type Invoice struct {
	ID     uint
	Tenant string
	Total  int64
}

type tenantKey struct{}

func tenantOf(ctx context.Context) (tenant string, ok bool) {
	tenant, ok = ctx.Value(tenantKey{}).(string)
	return tenant, ok
}

// The tenant of a context is the one that the primary's and the replicas' sessions
// have, and the one whose results are cached.
func TestC09TenantsOnReplicas(t *testing.T) {
	t.Parallel()
	testbed.RequirePostgres(t)
	cluster := testbed.SharedCluster(t)
	name := cluster.NewDatabase(t)
	role := "app_" + name
	conn, err := cluster.Primary().Conn(deadline(t), name)
	check(t, err)
	for _, sql := range []string{
		`CREATE TABLE invoices (id bigint PRIMARY KEY, tenant text, total bigint)`,
		`INSERT INTO invoices VALUES (1, 'a', 1), (2, 'a', 2), (3, 'b', 10), (4, 'b', 20)`,
		`ALTER TABLE invoices ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY mine ON invoices USING (tenant = current_setting('app.tenant', true))`,
		`CREATE ROLE ` + role + ` LOGIN`, `GRANT ALL ON invoices TO ` + role,
	} {
		_, err := conn.Exec(deadline(t), sql)
		check(t, err)
	}
	t.Cleanup(func() {
		for _, sql := range []string{`DROP OWNED BY ` + role, `DROP ROLE ` + role} {
			if _, err := conn.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
		_ = conn.Close(context.Background())
	})
	check(t, cluster.WaitCaughtUp(deadline(t)))
	dsn := func(n *testbed.Node) string {
		cfg, err := pgx.ParseConfig(n.DSN(name))
		check(t, err)
		return "postgres://" + role + "@" + n.Addr() + "/" + cfg.Database + "?sslmode=disable"
	}
	db, err := gorm.Open(postgres.New(postgres.Config{
		DSN: dsn(cluster.Primary()), OptionOpenDB: []stdlib.OptionOpenDB{cachehook.SessionTenant("app.tenant", tenantOf)},
	}), &gorm.Config{Logger: logger.Discard})
	check(t, err)
	var replicas []string
	for _, r := range cluster.Replicas() {
		replicas = append(replicas, dsn(r))
	}
	plugin := infra.New(infra.Config{
		Name:     name,
		Logger:   slog.New(slog.DiscardHandler),
		Resolver: resolver.Config{Replicas: resolver.DSNs(replicas...)},
		Cache:    cachehook.Config{Tenant: tenantOf, Tables: map[string]cachehook.Rule{"invoices": {}}},
	})
	check(t, db.Use(plugin))
	t.Cleanup(func() {
		check(t, plugin.Close())
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	check(t, plugin.Ready(deadline(t)))
	total := func(ctx context.Context) (sum int64) {
		t.Helper()
		check(t, db.WithContext(ctx).Model(&Invoice{}).Select("coalesce(sum(total), 0)::bigint").Scan(&sum).Error)
		return sum
	}
	as := func(tenant string) context.Context {
		return context.WithValue(context.Background(), tenantKey{}, tenant)
	}
	onReplicas := func() (n uint64) {
		for _, node := range plugin.Resolver().Nodes() {
			if node.Name != "primary" {
				n += node.Decisions["replica"]
			}
		}
		return n
	}
	// A machine under load may answer the first probes too late.
	eventually(t, "a replica is read", func() bool {
		total(cachehook.Skip(as("a")))
		return onReplicas() > 0
	})
	for i := range 40 {
		ctx := cachehook.Skip(context.Background())
		for tenant, want := range map[string]int64{"a": 3, "b": 30} {
			if got := total(context.WithValue(ctx, tenantKey{}, tenant)); got != want {
				t.Fatalf("%s reads %d in round %d", tenant, got, i)
			}
			if got := total(as(tenant)); got != want {
				t.Fatalf("%s is served %d in round %d", tenant, got, i)
			}
		}
		if got := total(context.Background()); got != 0 {
			t.Fatalf("nobody reads %d in round %d", got, i)
		}
	}
	if st := plugin.Cache().Stats(); st.L1Hits < 60 || st.Bypasses["tenant"] < 40 {
		t.Errorf("the cache did not serve: %+v", st)
	}
	check(t, db.WithContext(as("b")).Model(&Invoice{ID: 3}).Update("total", 11).Error)
	if a, b := total(as("a")), total(as("b")); a != 3 || b != 31 {
		t.Errorf("after b's write a reads %d, b %d", a, b)
	}
}

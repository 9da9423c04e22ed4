package hook_test

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/gorminfra/infra/internal/testbed"
)

// place is a schema with the tables of the models, and pools to reach it
// without GORM. Scenarios of one number use it one after another.
type place struct {
	cluster  *testbed.Cluster
	database string
	schema   string
	raw      *sql.DB   // straight to the primary
	replicas []*sql.DB // one for each replica
}

func newPlace(t *testing.T, cluster *testbed.Cluster, database, schema string) *place {
	t.Helper()
	p := &place{cluster: cluster, database: database, schema: schema}
	p.raw = openPool(t, p.dsn(cluster.Primary()))
	for _, n := range cluster.Replicas() {
		p.replicas = append(p.replicas, openPool(t, p.dsn(n)))
	}
	p.script(t, "CREATE SCHEMA "+schema)
	p.script(t, tables)
	return p
}

// empty makes the tables as new.
func (p *place) empty(t *testing.T) {
	t.Helper()
	p.script(t, emptyTables)
}

func (p *place) script(t *testing.T, text string) {
	t.Helper()
	if _, err := p.raw.ExecContext(t.Context(), text, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func (p *place) dsn(n *testbed.Node) string { return n.DSN(p.database) + "&search_path=" + p.schema }

func openPool(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	pool, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	pool.SetMaxIdleConns(4)
	t.Cleanup(func() { _ = pool.Close() })
	return pool
}

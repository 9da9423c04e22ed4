package resolver

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/testbed"
)

// The server itself says where each statement ran.
func TestR06KindsOfStatementsGoWhereTheyMust(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	must(t, g.c.Primary().Exec(deadline(t), g.name, `
		CREATE FUNCTION calm() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
		CREATE FUNCTION pure() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
		CREATE FUNCTION wild() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO items (n) VALUES (1) RETURNING 1';`))
	must(t, g.c.WaitCaughtUp(deadline(t)))
	g.allInUse()
	const replica, primary = true, false
	for _, tt := range []struct {
		sql  string
		want bool
	}{
		{"SELECT pg_is_in_recovery()", replica},
		{"select pg_is_in_recovery() from items limit 1", replica},
		{"WITH x AS (SELECT 1) SELECT pg_is_in_recovery() FROM x", replica},
		{"VALUES (pg_is_in_recovery())", replica},
		{"(SELECT pg_is_in_recovery())", replica},
		{"/* INSERT */ -- UPDATE\n ( ( SELECT pg_is_in_recovery() ) )", replica},
		{"SELECT pg_is_in_recovery() WHERE 'FOR UPDATE' <> ''", replica},
		{"SELECT pg_is_in_recovery() FROM (SELECT calm(), pure()) f", replica},
		{"SELECT pg_is_in_recovery() UNION SELECT pg_is_in_recovery()", replica},
		// Volatile and harmless; of the session, which is any.
		{"SELECT pg_is_in_recovery() FROM (SELECT random(), gen_random_uuid(), clock_timestamp(), pg_sleep(0)) f", replica},
		{"SELECT pg_is_in_recovery() FROM (SELECT pg_relation_size('items')) f", replica},
		{"SELECT pg_is_in_recovery() FROM (SELECT pg_backend_pid(), current_setting('work_mem')) f", replica},
		// Stable or immutable, or of the session, and not for a standby.
		{"SELECT pg_is_in_recovery() FROM (SELECT pg_walfile_name('0/1')) f", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT pg_my_temp_schema()) f", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT setseed(0.5)) f", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT pg_advisory_unlock_all()) f", primary},
		{"SELECT pg_is_in_recovery() FROM pg_cursors", primary},
		{"SELECT pg_is_in_recovery() WHERE 1 < (SELECT 2 FROM (SELECT currval('items_id_seq') WHERE false) f) OR true", primary},
		{"WITH w AS (INSERT INTO items (n) VALUES (1) RETURNING id) SELECT pg_is_in_recovery() FROM w", primary},
		{"/* SELECT */ WITH w AS (UPDATE items SET n = n RETURNING id) SELECT pg_is_in_recovery() FROM w LIMIT 1", primary},
		{"SELECT pg_is_in_recovery() FROM items WHERE id = 1 FOR UPDATE", primary},
		{"SELECT pg_is_in_recovery() FROM items i WHERE id = 1 FOR NO KEY UPDATE OF i NOWAIT", primary},
		{"SELECT pg_is_in_recovery() FROM items WHERE id = 1 FOR SHARE SKIP LOCKED", primary},
		{"SELECT pg_is_in_recovery() FROM items WHERE id = 1 FOR KEY SHARE", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT * FROM items LIMIT 1 FOR UPDATE) l", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT nextval('items_id_seq')) s", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT pg_try_advisory_xact_lock(1)) s", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT pg_notify('c', '')) s", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT txid_current()) s", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT set_config('my.x', 'y', true)) s", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT lo_create(0)) s", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT wild()) s", primary},
		{"SELECT pg_is_in_recovery() FROM (SELECT unknown_here()) s", primary},
	} {
		var got bool
		err := g.db.WithContext(inScope(deadline(t), "kind")).Raw(tt.sql).Scan(&got).Error
		if err != nil && !strings.Contains(tt.sql, "unknown_here") {
			t.Errorf("%s: %v", tt.sql, err)
			continue
		}
		if got != tt.want {
			t.Errorf("%s: on a replica: %v, want %v", tt.sql, got, tt.want)
		}
	}
	// The clause vouches for functions, and for nothing else; a standby takes an advisory
	// lock without a word.
	for _, sql := range []string{
		"SELECT pg_is_in_recovery() FROM (SELECT pg_try_advisory_xact_lock(1)) s",
		"SELECT pg_is_in_recovery() FROM items WHERE id = 1 FOR UPDATE",
		"WITH w AS (UPDATE items SET n = n RETURNING id) SELECT pg_is_in_recovery() FROM w LIMIT 1",
		"SELECT 1; SELECT pg_is_in_recovery()",
	} {
		before := g.node("primary").Decisions["retry"]
		var got bool
		err := g.db.WithContext(inScope(deadline(t), "vouched")).Clauses(dbresolver.Read).Raw(sql).Scan(&got).Error
		if several := strings.Contains(sql, ";"); err != nil != several || got {
			t.Errorf("with dbresolver.Read, %s: %v, on a replica: %v", sql, err, got)
		}
		if g.node("primary").Decisions["retry"] != before {
			t.Errorf("with dbresolver.Read, %s was sent to a replica first", sql)
		}
	}
	// What a standby would refuse, and the row that shows that it did not run there.
	for _, sql := range []string{
		"SELECT pg_is_in_recovery() AS standby INTO made FROM items LIMIT 1",
		"EXPLAIN ANALYZE INSERT INTO items (n) VALUES (4711)",
		"SELECT 1; INSERT INTO items (n) VALUES (4712)",
		"CREATE TEMP TABLE mine (id int)",
		"NOTIFY c",
		"DO $$ BEGIN INSERT INTO items (n) VALUES (4713); END $$",
	} {
		if err := g.db.WithContext(inScope(deadline(t), "kind")).Exec(sql).Error; err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	var n int64
	must(t, g.db.Model(&item{}).Where("n BETWEEN 4711 AND 4713").Count(&n).Error)
	if n != 3 {
		t.Errorf("%d of 3 rows were written", n)
	}
}

// standby as a column tells where a statement that GORM builds ran.
const standby = "id, CASE WHEN pg_is_in_recovery() THEN 1 ELSE 0 END AS n"

func TestR06GormStatements(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	read := func(ctx context.Context, change ...clause.Expression) int64 {
		t.Helper()
		var it item
		must(t, g.db.WithContext(ctx).Clauses(change...).Select(standby).First(&it).Error)
		return it.N
	}
	fresh := func() context.Context { return inScope(deadline(t), "gorm") }
	for name, tt := range map[string]struct {
		ctx    context.Context
		clause []clause.Expression
		want   int64
	}{
		"plain":                     {fresh(), nil, 1},
		"locking clause":            {fresh(), []clause.Expression{clause.Locking{Strength: "UPDATE"}}, 0},
		"Primary":                   {Primary(fresh()), nil, 0},
		"critical":                  {WithPriority(fresh(), Critical), nil, 0},
		"background":                {WithPriority(fresh(), Background), nil, 1},
		"dbresolver.Write":          {fresh(), []clause.Expression{dbresolver.Write}, 0},
		"dbresolver.Read":           {fresh(), []clause.Expression{dbresolver.Read}, 1},
		"Read wins over Primary":    {Primary(fresh()), []clause.Expression{dbresolver.Read}, 1},
		"Use of a replica":          {fresh(), []clause.Expression{dbresolver.Use("replica2")}, 1},
		"Use of the primary":        {fresh(), []clause.Expression{dbresolver.Use("primary")}, 0},
		"Use and Write":             {fresh(), []clause.Expression{dbresolver.Use("replica2"), dbresolver.Write}, 0},
		"bound too tight to judge":  {MaxStaleness(fresh(), 0), nil, 0},
		"any staleness is accepted": {MaxStaleness(fresh(), AnyStaleness), nil, 1},
	} {
		if got := read(tt.ctx, tt.clause...); got != tt.want {
			t.Errorf("%s: on a replica: %d, want %d", name, got, tt.want)
		}
	}

	// Use goes to exactly that node.
	for i := range 2 {
		for range 8 {
			var port int
			must(t, g.db.WithContext(fresh()).Clauses(dbresolver.Use(g.r.replicas()[i].name)).Raw("SELECT inet_server_port()").Scan(&port).Error)
			if port != g.c.Replica(i).Port() {
				t.Fatalf("Use(%q) ran on port %d", g.r.replicas()[i].name, port)
			}
		}
	}
	err := g.db.Clauses(dbresolver.Use("elsewhere")).First(&item{}).Error
	if !errors.Is(err, ErrUnknownNode) || !strings.Contains(err.Error(), "primary, replica1, replica2") {
		t.Errorf("an unknown name gives %v", err)
	}
	// dbresolver.Read vouches for functions, not for locks and writes.
	var on bool
	must(t, g.db.WithContext(fresh()).Clauses(dbresolver.Read).Raw("SELECT pg_is_in_recovery() FROM (SELECT set_config('a.b', '', true)) s").Scan(&on).Error)
	if !on {
		t.Error("dbresolver.Read with a volatile function ran on the primary")
	}
	must(t, g.db.WithContext(fresh()).Clauses(dbresolver.Read).Raw("SELECT pg_is_in_recovery() FROM items FOR UPDATE").Scan(&on).Error)
	if on {
		t.Error("dbresolver.Read with a lock ran on a replica")
	}
}

func TestRouterIsPutBackAfterARead(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	tx := g.db.WithContext(inScope(deadline(t), "chain")).Session(&gorm.Session{})
	chain := tx.Model(&item{}).Where("id > 0")
	var it item
	must(t, chain.Select(standby).First(&it).Error)
	if it.N != 1 {
		t.Fatal("the read was not on a replica")
	}
	must(t, chain.Create(&item{N: 5}).Error) // on a replica it would be refused
	must(t, g.db.Transaction(func(tx *gorm.DB) error { return tx.Create(&item{N: 6}).Error }))
	must(t, chain.Transaction(func(tx *gorm.DB) error {
		if recovering(t, tx) {
			return errors.New("a transaction after a read is on a replica")
		}
		return nil
	}))
	err := g.db.WithContext(inScope(deadline(t), "batches")).Model(&item{}).FindInBatches(&[]item{}, 1, func(tx *gorm.DB, batch int) error {
		if batch > 2 {
			return nil // what is created here would be found here
		}
		return tx.Session(&gorm.Session{NewDB: true}).Create(&item{N: 7}).Error
	}).Error
	must(t, err)
}

func TestPreloadUsesItsParentsNode(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	for range 20 {
		before := decisions(g.r)
		must(t, g.db.WithContext(inScope(deadline(t), "preload")).Preload("Parts").First(&item{}).Error)
		after := decisions(g.r)
		for name := range after {
			if d := after[name] - before[name]; d != 0 && d != 2 {
				t.Fatalf("%s served %d of the two statements", name, d)
			}
		}
	}
	before := g.node("primary").Decisions["preload"]
	must(t, g.db.WithContext(Primary(inScope(deadline(t), "preload"))).Preload("Parts").First(&item{}).Error)
	must(t, g.db.WithContext(inScope(deadline(t), "preload")).Clauses(dbresolver.Use("primary")).Preload("Parts").First(&item{}).Error)
	if got := g.node("primary").Decisions["preload"] - before; got != 1 {
		t.Errorf("%d preloads followed their parent to the primary", got)
	}
}

// decisions counts what each node was sent.
func decisions(r *Resolver) map[string]uint64 {
	sum := map[string]uint64{}
	for _, n := range r.Nodes() {
		for _, c := range n.Decisions {
			sum[n.Name] += c
		}
	}
	return sum
}

func TestR07Transactions(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	for name, tt := range map[string]struct {
		clause clause.Expression
		opts   *sql.TxOptions
		want   bool
	}{
		"plain":                    {nil, nil, false},
		"read-only":                {nil, &sql.TxOptions{ReadOnly: true}, true},
		"read-only repeatable":     {nil, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}, true},
		"read-only serializable":   {nil, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelSerializable}, false},
		"read-only with Write":     {dbresolver.Write, &sql.TxOptions{ReadOnly: true}, false},
		"Read":                     {dbresolver.Read, nil, true},
		"Write":                    {dbresolver.Write, nil, false},
		"Use without read-only":    {dbresolver.Use("replica2"), nil, false},
		"Use and read-only":        {dbresolver.Use("replica2"), &sql.TxOptions{ReadOnly: true}, true},
		"Use primary, read-only":   {dbresolver.Use("primary"), &sql.TxOptions{ReadOnly: true}, false},
		"read-only, uncommitted":   {nil, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelReadUncommitted}, true},
		"serializable with a Read": {dbresolver.Read, &sql.TxOptions{Isolation: sql.LevelSerializable}, false},
	} {
		chain := g.db.WithContext(inScope(deadline(t), "tx"))
		if tt.clause != nil {
			chain = chain.Clauses(tt.clause)
		}
		var opts []*sql.TxOptions
		if tt.opts != nil {
			opts = append(opts, tt.opts)
		}
		tx := chain.Begin(opts...)
		must(t, tx.Error)
		type place struct {
			Standby bool
			Pid     int
		}
		var first, again place
		const where = "SELECT pg_is_in_recovery() AS standby, pg_backend_pid() AS pid"
		must(t, tx.Raw(where).Scan(&first).Error)
		for range 5 {
			must(t, tx.Raw(where).Scan(&again).Error)
			if again != first {
				t.Errorf("%s: the transaction moved from %+v to %+v", name, first, again)
			}
		}
		if first.Standby != tt.want {
			t.Errorf("%s: on a replica: %v, want %v", name, first.Standby, tt.want)
		}
		must(t, tx.Commit().Error)
	}
	if err := g.db.Clauses(dbresolver.Use("elsewhere")).Begin().Error; !errors.Is(err, ErrUnknownNode) {
		t.Errorf("Begin with an unknown name gives %v", err)
	}
}

func TestConnHandle(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	ctx := inScope(deadline(t), "handle")
	read, err := g.r.Conn(ctx, Read)
	must(t, err)
	ports := map[int]bool{}
	for range 20 {
		var port int
		must(t, read.QueryRowContext(ctx, "SELECT inet_server_port()").Scan(&port))
		ports[port] = true
	}
	if len(ports) != 1 || ports[g.c.Primary().Port()] {
		t.Errorf("reads of one handle ran on ports %v", ports)
	}
	tx, err := read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	must(t, err)
	var port int
	must(t, tx.QueryRowContext(ctx, "SELECT inet_server_port()").Scan(&port))
	must(t, tx.(gorm.TxCommitter).Rollback())
	if !ports[port] {
		t.Errorf("a read-only transaction of the handle ran on port %d, its reads on %v", port, ports)
	}
	write, err := g.r.Conn(ctx, Write)
	must(t, err)
	var on bool
	must(t, write.QueryRowContext(ctx, "SELECT pg_is_in_recovery()").Scan(&on))
	if on {
		t.Error("a handle for writes read from a replica")
	}
	_, err = read.ExecContext(ctx, "INSERT INTO items (n) VALUES ($1)", 99)
	must(t, err)
	rows, err := read.QueryContext(ctx, "SELECT n FROM items WHERE n = 99")
	must(t, err)
	defer rows.Close()
	if !rows.Next() {
		t.Errorf("a handle does not see its own write (%v)", rows.Err())
	}
	if _, err := g.r.Conn(ctx, 7); err == nil {
		t.Error("an access of 7 was accepted")
	}
	if _, err := New(Config{}).Conn(ctx, Read); err == nil {
		t.Error("a Resolver that is not in use gave a handle")
	}
}

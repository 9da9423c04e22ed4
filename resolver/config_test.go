package resolver

import (
	"strings"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestZeroConfigIsValid(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsEveryFaultWithItsField(t *testing.T) {
	t.Parallel()
	cfg := Config{
		Replicas: []Node{
			{Name: "a"},
			{Name: "a", DSN: "postgres://u:topsecret@h:port/x"},
			{Name: "primary", DSN: "host=h", Dialector: postgres.Open("host=h")},
			{Name: "with blank", DSN: "host=h", Weight: 1 << 20},
			{DSN: "host=h"},
			{DSN: "host=h password=my topsecret"},
			{Dialector: (*postgres.Dialector)(nil)},
		},
		MaxLag:         -1,
		Pool:           Pool{Max: 3, Min: 4},
		Probe:          Probe{Interval: 1, Timeout: -1},
		WithoutPrimary: 9,
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{
		`resolver: Replicas[0] is without DSN and Dialector: needs one of them`,
		`resolver: Replicas[1].Name is "a": must differ from that of Replicas[0]`,
		`resolver: Replicas[1].DSN is set, but not readable (invalid port): must be a connection string that pgx.ParseConfig accepts`,
		`resolver: Replicas[5].DSN is set, but not readable (failed to parse as keyword/value: invalid keyword/value): must be`,
		`resolver: Replicas[2].Name is "primary": is the name of what gorm.Open connected to`,
		`resolver: Replicas[2] is with both DSN and Dialector: needs one of them`,
		`resolver: Replicas[3].Name is "with blank"`,
		`resolver: Replicas[3].Weight is 1048576`,
		`resolver: Replicas[6].Dialector is a nil *postgres.Dialector: must be a Dialector or left out`,
		`resolver: MaxLag is -1ns`,
		`resolver: Pool.Min is 4: must not exceed Pool.Max, which is 3`,
		`resolver: Probe.Interval is 1ns`,
		`resolver: Probe.Timeout is -1ns`,
		`resolver: WithoutPrimary is WithoutPrimary(9)`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 14 {
		t.Errorf("%d faults:\n%v", n, err)
	}
	if strings.Contains(err.Error(), "topsecret") {
		t.Error("the error reveals a password")
	}
}

func TestPoolDefaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pool     Pool
		postgres bool
		limit    int
		want     Pool
	}{
		{Pool{}, true, 0, Pool{50, 10, 5, 5 * time.Minute, time.Hour}},
		{Pool{}, true, 4, Pool{4, 4, 0, 5 * time.Minute, time.Hour}},
		{Pool{Max: 6}, true, 4, Pool{6, 6, 0, 5 * time.Minute, time.Hour}},
		{Pool{Min: 20}, true, 8, Pool{8, 8, 0, 5 * time.Minute, time.Hour}},
		{Pool{Min: -1, IdleTimeout: -1, MaxLifetime: -1}, true, 0, Pool{50, 0, 5, -1, -1}},
		{Pool{}, false, 0, Pool{}},
		{Pool{Max: 3, Min: 2}, false, 9, Pool{3, 2, 0, 0, 0}},
	} {
		if got := tt.pool.withDefaults(tt.postgres, tt.limit); got != tt.want {
			t.Errorf("%+v (Postgres %v, limit %d): %+v, want %+v", tt.pool, tt.postgres, tt.limit, got, tt.want)
		}
	}
}

func TestInitializeTouchesNothingWhenTheConfigIsFaulty(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	db, err := gorm.Open(postgres.Open(c.Primary().DSN("")), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	pool, err := db.DB()
	must(t, err)
	defer pool.Close()
	before := db.ConnPool
	if err := db.Use(New(Config{MaxLag: -1})); err == nil || db.ConnPool != before {
		t.Errorf("a faulty config: %v, pool %T", err, db.ConnPool)
	}
	r := New(Config{Replicas: []Node{{Dialector: renamed{postgres.Open("host=h")}}}, Pool: Pool{Min: -1}, Logger: quiet()})
	if err := db.Use(r); err == nil || !strings.Contains(err.Error(), "must be of the primary's kind") {
		t.Errorf("a replica of another kind gives %v", err)
	}
	must(t, r.Close())
	// One Resolver, two databases.
	r = New(Config{Pool: Pool{Min: -1}, Logger: quiet()})
	must(t, db.Use(r))
	defer r.Close()
	other, err := gorm.Open(postgres.Open(c.Primary().DSN("")), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	otherPool, err := other.DB()
	must(t, err)
	defer otherPool.Close()
	if err := other.Use(r); err == nil || !strings.Contains(err.Error(), "already used") {
		t.Errorf("the second database gives %v", err)
	}
}

func TestDisabledLeavesEverythingAsItIs(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	db, r := open(t, c.Primary().DSN(""), Config{Disabled: true, Replicas: DSNs(c.Replica(0).DSN(""))})
	must(t, r.Ready(deadline(t)))
	pool, err := db.DB()
	must(t, err)
	if pool.Stats().MaxOpenConnections != 0 || recovering(t, db) || len(r.Nodes()) != 0 {
		t.Error("a disabled Resolver did something")
	}
}

// renamed is Postgres that passes for a database without WAL positions.
type renamed struct{ gorm.Dialector }

func (renamed) Name() string { return "other" }

func TestDatabaseWithoutPositions(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	name := c.NewDatabase(t)
	use := func(cfg Config) *gorm.DB {
		cfg.Replicas = []Node{{Dialector: renamed{postgres.Open(c.Replica(0).DSN(name))}}}
		cfg.Logger, cfg.Probe = quiet(), patient
		db, err := gorm.Open(renamed{postgres.Open(c.Primary().DSN(name))}, &gorm.Config{Logger: logger.Discard})
		must(t, err)
		pool, err := db.DB()
		must(t, err)
		t.Cleanup(func() { _ = pool.Close() })
		r := New(cfg)
		must(t, db.Use(r))
		t.Cleanup(func() { _ = r.Close() })
		must(t, r.Ready(deadline(t)))
		if n := pool.Stats().MaxOpenConnections; n != cfg.Pool.Max {
			t.Errorf("the pool is bounded by %d", n)
		}
		return db
	}
	db := use(Config{})
	if recovering(t, db) || recovering(t, db.WithContext(MaxStaleness(deadline(t), time.Hour))) {
		t.Error("a replica of unknown staleness was read")
	}
	if !recovering(t, db.WithContext(MaxStaleness(deadline(t), AnyStaleness))) {
		t.Error("a caller who accepts any staleness got the primary")
	}
	db = use(Config{MaxLag: AnyStaleness, Pool: Pool{Max: 3}})
	if !recovering(t, db) {
		t.Error("with any staleness accepted in the config a read ran on the primary")
	}
	ctx := inScope(deadline(t), "writer")
	must(t, db.WithContext(ctx).Exec("CREATE TABLE x (id int)").Error)
	if recovering(t, db.WithContext(ctx)) {
		t.Error("a scope that wrote was read behind its write")
	}
}

func TestNodesByDialector(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	given, err := gorm.Open(postgres.Open(c.Replica(1).DSN("")), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	pool, err := given.DB()
	must(t, err)
	defer pool.Close()
	db, r := open(t, c.Primary().DSN(""), Config{
		Replicas: []Node{
			{Name: "opened", Dialector: postgres.Open(c.Replica(0).DSN(""))},
			{Name: "given", Dialector: postgres.New(postgres.Config{Conn: pool})},
		},
		Probe: patient, Pool: Pool{Max: 5, Min: 1}, Logger: quiet(), Policy: RoundRobin(),
	})
	must(t, r.Ready(deadline(t)))
	eventually(t, "both to serve", func() bool {
		recovering(t, db.WithContext(inScope(deadline(t), "read")))
		d := decisions(r)
		return d["opened"] > 0 && d["given"] > 0
	})
	must(t, r.Close())
	if err := pool.Ping(); err != nil {
		t.Errorf("the caller's pool was closed: %v", err)
	}
	if p := r.nodes()[1].ours; p == nil || p.Ping() == nil {
		t.Error("a pool that we opened is open after Close")
	}
}

func TestWorksWithPreparedStatements(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	db, err := gorm.Open(postgres.Open(g.primary), &gorm.Config{Logger: logger.Discard, PrepareStmt: true})
	must(t, err)
	pool, err := db.DB()
	must(t, err)
	defer pool.Close()
	r := New(Config{Replicas: DSNs(g.nodes...), Probe: patient, Pool: Pool{Min: 1, Max: 5}, Logger: quiet()})
	must(t, db.Use(r))
	defer r.Close()
	must(t, r.Ready(deadline(t)))
	for range 3 {
		ctx := inScope(deadline(t), "prepared")
		var it item
		eventually(t, "a replica", func() bool {
			must(t, db.WithContext(inScope(ctx, "x")).Select(standby).First(&it, 1).Error)
			return it.N == 1
		})
		must(t, db.WithContext(ctx).Create(&item{N: 3}).Error)
		must(t, db.WithContext(ctx).Select(standby).First(&it, 1).Error)
	}
	if conn, err := r.Conn(deadline(t), Read); err != nil || conn.QueryRowContext(deadline(t), "SELECT 1").Scan(new(int)) != nil {
		t.Errorf("a handle under PrepareStmt: %v", err)
	}
}

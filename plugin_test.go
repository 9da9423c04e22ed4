package infra_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/nplusone"
	"github.com/gorminfra/infra/resolver"
	"github.com/gorminfra/infra/slowlog"
)

func TestMain(m *testing.M) { testbed.Main(m) }

type Product struct {
	ID         uint
	Name       string
	PriceCents int64
}

type Customer struct {
	ID   uint
	Name string
}

type Order struct {
	ID         uint
	CustomerID uint
	Customer   Customer
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("never came true: %s", what)
}

// shop is a database with a few rows on real servers.
type shop struct {
	cluster *testbed.Cluster
	name    string
}

func newShop(t *testing.T, c *testbed.Cluster) shop {
	t.Helper()
	s := shop{c, c.NewDatabase(t)}
	db := s.open(t)
	check(t, db.AutoMigrate(&Product{}, &Customer{}, &Order{}))
	for i := range 20 {
		check(t, db.Create(&Product{Name: fmt.Sprint("product ", i+1), PriceCents: 100}).Error)
		check(t, db.Create(&Order{Customer: Customer{Name: fmt.Sprint("customer ", i+1)}}).Error)
	}
	check(t, c.WaitCaughtUp(deadline(t)))
	return s
}

// open connects GORM to the primary.
func (s shop) open(t *testing.T) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(postgres.Open(s.cluster.Primary().DSN(s.name)), &gorm.Config{Logger: logger.Discard})
	check(t, err)
	pool, err := db.DB()
	check(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	return db
}

// everything is a configuration with all parts on.
func (s shop) everything(t *testing.T) infra.Config {
	var replicas []string
	for _, r := range s.cluster.Replicas() {
		replicas = append(replicas, r.DSN(s.name))
	}
	return infra.Config{
		Name:        s.name,
		Development: true,
		Redis:       newRedisClient(t, testbed.SharedRedis(t)),
		Logger:      slog.New(slog.DiscardHandler),
		Resolver:    resolver.Config{Replicas: resolver.DSNs(replicas...), Pool: resolver.Pool{Min: 1, Max: 8}},
		Cache:       cachehook.Config{Tables: map[string]cachehook.Rule{"products": {TTL: time.Minute}}, Timeout: 5 * time.Second},
		Limits:      limithook.Config{PerUser: limithook.PerMinute(100_000), Global: limithook.PerMinute(1_000_000)},
		NPlusOne:    nplusone.Config{Threshold: 5},
		SlowLog:     slowlog.Config{Threshold: 100 * time.Millisecond, Explain: slowlog.Plan},
		Metrics:     metrics.Config{Registerer: prometheus.NewRegistry()},
	}
}

func newRedisClient(t *testing.T, r *testbed.Redis) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: r.Addr()})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// use puts a plugin on db and waits until it is ready.
func use(t *testing.T, db *gorm.DB, cfg infra.Config) *infra.Plugin {
	t.Helper()
	p := infra.New(cfg)
	check(t, db.Use(p))
	t.Cleanup(func() { check(t, p.Close()) })
	check(t, p.Ready(deadline(t)))
	return p
}

func TestZeroConfigIsSafe(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	p := use(t, db, infra.Config{})

	ctx, sc := p.Begin(context.Background(), "job")
	var products []Product
	for range 3 {
		check(t, db.WithContext(ctx).Find(&products).Error)
	}
	if err := db.WithContext(ctx).First(&Product{}, 999).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
		t.Error(err)
	}
	r := sc.End()
	if len(products) != 20 || r.Errors != 0 || r.Statements != 4 || r.CacheHits() != 0 || r.Refused != 0 || r.Nodes["primary"] != 4 {
		t.Errorf("%d products, report %+v: want 20, and four statements on the primary, uncached", len(products), r)
	}
}

func TestEveryFaultIsReportedBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	before := db.ConnPool
	err := db.Use(infra.New(infra.Config{
		Name:     "a{b}",
		Resolver: resolver.Config{MaxLag: -time.Second},
		Cache:    cachehook.Config{L1: cachehook.L1{TTL: -time.Second}},
		Limits:   limithook.Config{PerUser: limithook.Per(-1, time.Second)},
		NPlusOne: nplusone.Config{Threshold: -2},
		SlowLog:  slowlog.Config{History: -3},
		HTTP:     infra.HTTP{Requests: infra.RequestLimits{Global: limithook.Per(1, time.Nanosecond)}},
	}))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"infra: Name", "resolver: MaxLag", "cachehook: L1.TTL", "limithook: PerUser.Max", "infra: HTTP.Requests.Global.Window", "nplusone: Threshold", "slowlog: History"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "Name"); n != 1 {
		t.Errorf("the fault of Name is told %d times:\n%v", n, err)
	}
	if db.ConnPool != before || len(db.Plugins) != 0 {
		t.Errorf("the database was touched: pool %T, plugins %v", db.ConnPool, db.Plugins)
	}
	use(t, db, infra.Config{}) // a corrected one can be used
}

func TestOnePluginServesOneDatabase(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	p := use(t, db, infra.Config{})
	if err := db.Use(infra.New(infra.Config{})); !errors.Is(err, gorm.ErrRegistered) {
		t.Errorf("a second plugin on one database: %v", err)
	}
	if err := s.open(t).Use(p); err == nil || !strings.Contains(err.Error(), "already serves") {
		t.Errorf("one plugin on a second database: %v", err)
	}
}

func TestAfterCloseStatementsGoToThePrimaryPlainly(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	cfg := s.everything(t)
	p := use(t, db, cfg)
	check(t, p.Close())
	check(t, p.Close())
	var recovering bool
	for range 10 {
		check(t, db.Raw("SELECT pg_is_in_recovery()").Scan(&recovering).Error)
		if recovering {
			t.Fatal("a statement went to a replica")
		}
	}
	var product Product
	check(t, db.First(&product, 1).Error)
	check(t, db.Model(&product).Update("price_cents", 7).Error)
	check(t, db.First(&product, 1).Error)
	if product.PriceCents != 7 {
		t.Errorf("read %+v after the write", product)
	}
	if err := cfg.Redis.Ping(deadline(t)).Err(); err != nil {
		t.Errorf("the caller's Redis client: %v", err)
	}
	if n := len(gather(t, cfg.Metrics.Registerer.(*prometheus.Registry))); n != 0 {
		t.Errorf("%d metrics are still exported", n)
	}
}

func TestPartsTogether(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db, other := s.open(t), s.open(t)
	cfg := s.everything(t)
	registry := cfg.Metrics.Registerer.(*prometheus.Registry)
	p := use(t, db, cfg)
	cfg.Metrics.Registerer = prometheus.NewRegistry()
	use(t, other, cfg)

	t.Run("reads go to replicas and are cached", func(t *testing.T) {
		eventually(t, "a read on a replica, then a hit", func() bool {
			ctx, sc := p.Begin(context.Background(), "read")
			var orders []Order
			var product Product
			check(t, db.WithContext(ctx).Find(&orders).Error)
			check(t, db.WithContext(ctx).First(&product, 2).Error)
			r := sc.End()
			return r.Nodes["primary"] == 0 && r.CacheHits() == 1
		})
	})
	t.Run("own writes are read at once, others within the lease", func(t *testing.T) {
		var mine, theirs Product
		for price := range int64(50) {
			check(t, other.First(&theirs, 3).Error) // somebody fills
			check(t, db.Model(&Product{}).Where("id = ?", 3).Update("price_cents", price).Error)
			check(t, db.First(&mine, 3).Error)
			if mine.PriceCents != price {
				t.Fatalf("read %d behind an own write of %d", mine.PriceCents, price)
			}
		}
		eventually(t, "the other instance sees the write", func() bool {
			check(t, other.First(&theirs, 3).Error)
			return theirs.PriceCents == 49
		})
	})
	t.Run("a loop is found and its preload named", func(t *testing.T) {
		ctx, sc := p.Begin(context.Background(), "orders")
		var orders []Order
		check(t, db.WithContext(ctx).Find(&orders).Error)
		for i := range orders {
			check(t, db.WithContext(ctx).First(&orders[i].Customer, orders[i].CustomerID).Error)
		}
		r := sc.End()
		if text := r.NPlusOne.Text(); !strings.Contains(text, `Preload("Customer")`) || !strings.Contains(text, "plugin_test.go:") {
			t.Errorf("report:\n%s", text)
		}
	})
	t.Run("metrics tell of all parts", func(t *testing.T) {
		names := gather(t, registry)
		for _, want := range []string{"infra_routing_decisions", "infra_replica_lag", "infra_cache_", "infra_limit", "infra_nplusone_", "infra_slow", "db_client_operation_duration"} {
			if !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, want) }) {
				t.Errorf("no metric %s… in %v", want, names)
			}
		}
	})
}

// A flight of the cache reads for callers who have seen no row yet.
func TestAResultThatBreaksWhileTheCacheReadsItIsReadOnceMore(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	check(t, s.cluster.Primary().Exec(deadline(t), s.name, "UPDATE products SET name = 'cut behind me' WHERE id < 4"))
	check(t, s.cluster.WaitCaughtUp(deadline(t)))
	replica := testbed.NewCutter(t, s.cluster.Replica(0).Addr(), "cut behind me")
	cfg := s.everything(t)
	cfg.Resolver.Replicas = resolver.DSNs(testbed.DSN(replica.Addr(), s.name))
	db := s.open(t)
	p := use(t, db, cfg)
	eventually(t, "reads to go to the replica", func() bool {
		ctx, sc := p.Begin(context.Background(), "read")
		check(t, db.WithContext(ctx).Find(&[]Order{}).Error)
		return sc.End().Nodes["primary"] == 0
	})
	replica.Cut(1)
	// The fill of a table whose last write is not known yet goes to the primary.
	n := 0
	read := func() (hit bool) {
		ctx, sc := p.Begin(context.Background(), "read")
		var got []Product
		check(t, db.WithContext(ctx).Where("id < 4 AND price_cents >= ?", -n).Find(&got).Error)
		if len(got) != 3 {
			t.Errorf("%d rows", len(got))
		}
		return sc.End().CacheHits() == 1
	}
	eventually(t, "a fill from the replica to be cut", func() bool {
		n++
		return !read() && replica.Cuts() == 1
	})
	if !read() {
		t.Error("what the second attempt read was not kept")
	}
}

// What a function of a Fetch reads on a replica that is behind would be kept under
// the stamps of now.
func TestC05FetchKeepsNothingThatAReplicaHasOld(t *testing.T) {
	t.Parallel()
	cluster := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	s := newShop(t, cluster)
	db, other := s.open(t), s.open(t)
	cfg := s.everything(t)
	cfg.Resolver.MaxLag = time.Hour
	p := use(t, db, cfg)
	cfg.Metrics.Registerer = prometheus.NewRegistry()
	use(t, other, cfg)
	reads := map[string]func(ctx context.Context) (int64, error){
		"a read": func(ctx context.Context) (id int64, err error) {
			return id, db.WithContext(ctx).Raw("SELECT customer_id FROM orders WHERE id = 1").Scan(&id).Error
		},
		"a read-only transaction": func(ctx context.Context) (id int64, err error) {
			return id, db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
				return tx.Raw("SELECT customer_id FROM orders WHERE id = 1").Scan(&id).Error
			}, &sql.TxOptions{ReadOnly: true})
		},
	}
	fetch := func(key string) int64 {
		v, err := cachehook.Fetch(deadline(t), p.Cache(), key, time.Minute, []string{cachehook.Table("orders")}, reads[key])
		check(t, err)
		return v
	}
	eventually(t, "reads to go to the replica", func() bool {
		ctx, sc := p.Begin(context.Background(), "read")
		check(t, db.WithContext(ctx).Find(&[]Order{}).Error)
		return sc.End().Nodes["primary"] == 0
	})
	next := int64(1)
	for key := range reads {
		if fetch(key) == 1 {
			next = 2
		}
	}
	check(t, cluster.Replica(0).PauseReplay(deadline(t)))
	check(t, other.Model(&Order{}).Where("id = ?", 1).Update("customer_id", next).Error)
	for key := range reads {
		eventually(t, key+" to show the write", func() bool { return fetch(key) == next }) // within the Lease
	}
	check(t, cluster.Replica(0).ResumeReplay(deadline(t)))
}

func TestViewsThatDoMoreThanReadAreWrites(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	for _, ddl := range []string{
		"CREATE SEQUENCE sq",
		"CREATE FUNCTION bump() RETURNS int LANGUAGE sql VOLATILE AS 'UPDATE products SET price_cents = price_cents + 1 WHERE id = 1 RETURNING 1'",
		"CREATE VIEW nextv AS SELECT nextval('sq') AS n",
		"CREATE VIEW overnextv AS SELECT n FROM nextv",
		"CREATE VIEW lockv AS SELECT pg_try_advisory_lock(42) AS ok, pg_is_in_recovery() AS standby",
		"CREATE VIEW bumpv AS SELECT bump() AS n",
		"CREATE VIEW cheap AS SELECT id, pg_is_in_recovery() AS standby FROM products",
	} {
		check(t, db.Exec(ddl).Error)
	}
	check(t, s.cluster.WaitCaughtUp(deadline(t)))
	use(t, db, s.everything(t))
	var standby bool
	eventually(t, "a plain view is read on a replica", func() bool {
		check(t, db.Raw("SELECT standby FROM cheap LIMIT 1").Scan(&standby).Error)
		return standby
	})
	var n int
	check(t, db.Raw("SELECT n FROM nextv").Scan(&n).Error)
	check(t, db.Raw("SELECT n FROM public.overnextv").Scan(&n).Error)
	check(t, db.Raw("SELECT standby FROM lockv").Scan(&standby).Error)
	if standby {
		t.Error("a lock was taken on a standby")
	}
	var before, after Product
	check(t, db.First(&before, 1).Error)
	check(t, db.Raw("SELECT n FROM bumpv").Scan(&n).Error)
	check(t, db.First(&after, 1).Error)
	if after.PriceCents != before.PriceCents+1 {
		t.Errorf("read %d after a view has written, was %d", after.PriceCents, before.PriceCents)
	}
}

func gather(t *testing.T, r *prometheus.Registry) []string {
	t.Helper()
	families, err := r.Gather()
	check(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	return names
}

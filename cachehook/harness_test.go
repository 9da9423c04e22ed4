package cachehook

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) {
	// GORM's statement store has a goroutine that its Close does not end.
	testbed.Main(m, goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

// product is the table of most tests.
type product struct {
	ID    int64
	Name  string
	Price int64
}

var quiet = slog.New(slog.DiscardHandler)

// instance is one process's worth of the plugin, with what it did.
type instance struct {
	*gorm.DB
	cache *Cache
	seen  *observer
}

// observer counts outcomes, and can park a statement before it reaches the
// database or after it has left it.
type observer struct {
	mu       sync.Mutex
	outcomes map[hook.Outcome]int
	lookups  [hook.Bypass + 1]int
	waited   time.Duration // of the last read
	took     time.Duration
	queries  atomic.Int64 // that reached the database, flights included
	charge   atomic.Pointer[func(context.Context, *hook.Record) error]
	primary  *hook.Node
	done     atomic.Pointer[func(*hook.Record)]
}

// The observer is also the router: it sends everything to the primary, and its
// Done runs between a flight's last row and its fill.
var _ hook.Router = (*observer)(nil)

func (o *observer) Route(context.Context, *hook.Record) (*hook.Node, error) { return o.primary, nil }

func (o *observer) Retry(context.Context, *hook.Record, error) *hook.Node { return nil }

func (o *observer) RouteTx(context.Context, *sql.TxOptions, hook.Hint) (*hook.Node, error) {
	return o.primary, nil
}

func (o *observer) Done(r *hook.Record, _ *hook.Node, _ error, _ time.Duration) {
	if f := o.done.Load(); f != nil && r.Access == hook.ReadOnly {
		(*f)(r)
	}
}

// park makes the next read stop between its last row and its fill. read is
// closed when it is there; release lets it go on, as the end of its context does.
func (o *observer) park() (read <-chan struct{}, release func()) {
	there, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f := func(r *hook.Record) {
		mine := false
		once.Do(func() { mine = true; close(there) })
		if mine {
			select {
			case <-goOn:
			case <-r.Context.Done():
			}
		}
	}
	o.done.Store(&f)
	return there, sync.OnceFunc(func() { close(goOn); o.done.Store(nil) })
}

func (o *observer) Observe(_ context.Context, r *hook.Record) {
	if r.Access != hook.ReadOnly {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outcomes[r.Outcome]++
	o.lookups[r.Lookup]++
	o.waited, o.took = r.Waited, r.Duration
}

func (o *observer) Charge(ctx context.Context, r *hook.Record) error {
	if r.Access == hook.ReadOnly {
		o.queries.Add(1)
	}
	if f := o.charge.Load(); f != nil {
		return (*f)(ctx, r)
	}
	return nil
}

func (o *observer) count(out hook.Outcome) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.outcomes[out]
}

func (o *observer) looked(l hook.Lookup) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lookups[l]
}

// times are the waiting and the whole of the last read.
func (o *observer) times() (waited, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waited, o.took
}

var schemas struct {
	once sync.Once
	dsn  string
	n    atomic.Int64
}

// database makes a schema with the table of products in the package's database,
// and returns the DSN that has it as its search path.
func database(t testing.TB) string {
	t.Helper()
	testbed.RequirePostgres(t)
	cluster := testbed.SharedCluster(t)
	schemas.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must(t, cluster.CreateDatabase(ctx, "cachehook"))
		schemas.dsn = cluster.Primary().DSN("cachehook")
	})
	schema := fmt.Sprintf("s%d", schemas.n.Add(1))
	exec(t, schemas.dsn, "CREATE SCHEMA "+schema)
	dsn := schemas.dsn + "&search_path=" + schema
	makeProducts(t, dsn)
	return dsn
}

// databaseAlone is database in one of its own. A temporary table is seen in the
// catalogue by all who use the same database, and keeps the others of its name from
// being cached.
func databaseAlone(t testing.TB) string {
	t.Helper()
	testbed.RequirePostgres(t)
	cluster := testbed.SharedCluster(t)
	dsn := cluster.Primary().DSN(cluster.NewDatabase(t))
	makeProducts(t, dsn)
	return dsn
}

func makeProducts(t testing.TB, dsn string) {
	t.Helper()
	exec(t, dsn, `CREATE TABLE products (id bigint PRIMARY KEY, name text, price bigint)`,
		`INSERT INTO products SELECT i, 'p' || i, i * 10 FROM generate_series(1, 100) i`)
}

func exec(t testing.TB, dsn string, statements ...string) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func open(t testing.TB, dsn string, cfg Config) *instance {
	t.Helper()
	return openWith(t, dsn, cfg, &gorm.Config{})
}

func openWith(t testing.TB, dsn string, cfg Config, gcfg *gorm.Config) *instance {
	t.Helper()
	return openPrepared(t, dsn, cfg, gcfg, func(*Cache) {})
}

// openPrepared calls prepare before the cache is used.
func openPrepared(t testing.TB, dsn string, cfg Config, gcfg *gorm.Config, prepare func(*Cache)) *instance {
	t.Helper()
	return openOver(t, postgres.Open(dsn), cfg, gcfg, prepare)
}

func openOver(t testing.TB, dialector gorm.Dialector, cfg Config, gcfg *gorm.Config, prepare func(*Cache)) *instance {
	t.Helper()
	gcfg.Logger = logger.Discard
	db, err := gorm.Open(dialector, gcfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	if cfg.Tables == nil {
		cfg.Tables = map[string]Rule{"products": {}}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second // the machine may be busy
	}
	c := New(cfg)
	if c.roster != nil { // no earlier roster, and no stranger: there is nothing to wait for
		c.names.settle, c.names.lost, c.roster.lease = 0, 0, 4*time.Second
	}
	prepare(c)
	if err := db.Use(c); err != nil {
		t.Fatal(err)
	}
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	seen := &observer{outcomes: make(map[hook.Outcome]int), primary: hub.Primary()}
	remove, err := hub.Register(seen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		remove()
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	return &instance{db, c, seen}
}

// client is a client of the shared Redis and a namespace of the test's own.
func client(t testing.TB) (redis.UniversalClient, string) {
	t.Helper()
	testbed.RequireRedis(t)
	return clientOf(t, testbed.SharedRedis(t).Addr()), namespace(t)
}

var namespaces atomic.Int64

// namespace is a name that no other run of the test has had.
func namespace(t testing.TB) string {
	return fmt.Sprintf("%s-%d", strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()), namespaces.Add(1))
}

func clientOf(t testing.TB, addr string) redis.UniversalClient {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: 500 * time.Millisecond, WriteTimeout: 500 * time.Millisecond, DialTimeout: 500 * time.Millisecond, MaxRetries: -1})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func ready(t testing.TB, instances ...*instance) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	for _, i := range instances {
		if err := i.cache.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// price reads a product's price.
func (i *instance) price(t testing.TB, id int64) int64 {
	t.Helper()
	var p product
	if err := i.First(&p, id).Error; err != nil {
		t.Fatal(err)
	}
	return p.Price
}

// setPrice writes one.
func (i *instance) setPrice(t testing.TB, id, price int64) {
	t.Helper()
	if err := i.Model(&product{ID: id}).Update("price", price).Error; err != nil {
		t.Fatal(err)
	}
}

// table is the tag of a table.
func (i *instance) table(t testing.TB, name string) string {
	t.Helper()
	read := i.cache.catalog.get(context.Background(), true).readsOf(name, nil)
	if read.why != "" || len(read.tags) != 1 {
		t.Fatalf("tags of %s: %v %s", name, read.tags, read.why)
	}
	return read.tags[0]
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(time.Millisecond)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// errOf is for what tells Redis when nobody looks at the schema.
func errOf(_ glance, err error) error { return err }

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// eachMode runs a test with memory alone and with Redis.
func eachMode(t *testing.T, f func(t *testing.T, cfg Config)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		f(t, Config{})
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		rdb, name := client(t)
		f(t, Config{Redis: rdb, Name: name})
	})
	t.Run("redis-revalidate", func(t *testing.T) {
		t.Parallel()
		rdb, name := client(t)
		f(t, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	})
}

// keysOf returns the keys of that pattern.
func keysOf(t testing.TB, rdb redis.UniversalClient, pattern string) []string {
	t.Helper()
	keys, err := rdb.Keys(context.Background(), pattern).Result()
	must(t, err)
	return keys
}

package cachehook

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"gorm.io/gorm"
)

// told counts the commands that speak of tags: marks, stamps, messages.
type told struct{ n atomic.Int64 }

func (c *told) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *told) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.see(cmd)
		return next(ctx, cmd)
	}
}

func (c *told) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			c.see(cmd)
		}
		return next(ctx, cmds)
	}
}

func (c *told) see(cmd redis.Cmder) {
	text := fmt.Sprint(cmd.Args()...)
	if strings.Contains(text, ":cache:t:") || cmd.Name() == "publish" && strings.Contains(text, tablePrefix) {
		c.n.Add(1)
	}
}

// others makes a second table.
func others(t *testing.T) (dsn string) {
	dsn = database(t)
	exec(t, dsn, `CREATE TABLE others (id bigint PRIMARY KEY, n bigint)`, `INSERT INTO others SELECT i, 0 FROM generate_series(1, 100) i`)
	return dsn
}

// n reads a value of others, by clause, and tells whether the database was asked.
func (i *instance) n(t testing.TB) (n int64, queried bool) {
	t.Helper()
	before := i.seen.queries.Load()
	must(t, i.Clauses(TTL(time.Minute)).Table("others").Select("n").Where("id = 1").Scan(&n).Error)
	return n, i.seen.queries.Load() > before
}

// enlisted waits until the instance leaves out what nobody caches.
func (i *instance) enlisted(t testing.TB) {
	t.Helper()
	eventually(t, "the instance is enlisted", 30*time.Second, func() bool {
		i.cache.roster.mu.Lock()
		defer i.cache.roster.mu.Unlock()
		cat := i.cache.catalog.present.Load()
		return i.cache.now() < i.cache.roster.skipUntil && (cat == nil || i.cache.roster.schema.upToDate(cat.basis()))
	})
}

// cachesOthers waits until the instance serves others from the cache.
func (i *instance) cachesOthers(t testing.TB) {
	t.Helper()
	eventually(t, "others are cached", 30*time.Second, func() bool { _, queried := i.n(t); return !queried })
}

func TestC07WriteOfATableThatNobodyCachesDoesNotAskRedis(t *testing.T) {
	t.Parallel()
	for name, skip := range map[string]bool{"default transaction": false, "autocommit": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, space := client(t)
			seen := &told{}
			rdb.AddHook(seen)
			db := openWith(t, others(t), Config{Redis: rdb, Name: space}, &gorm.Config{SkipDefaultTransaction: skip})
			ready(t, db)
			db.catalogLoaded(t)
			db.enlisted(t)
			write := func(table string) int64 {
				before := seen.n.Load()
				must(t, db.Table(table).Where("id = ?", 2).Update("id", 2).Error)
				return seen.n.Load() - before
			}
			equal(t, "commands for a table that nobody caches", write("others"), 0)
			equal(t, "writes untold", db.cache.Stats().Untold, 1)
			equal(t, "commands for one with a rule that nobody has read yet", write("products"), 0)
			db.price(t, 2)
			if n := write("products"); n < 4 { // mark, message, stamp, message
				t.Fatalf("%d commands for a table that is cached", n)
			}
			equal(t, "commands for the other one", write("others"), 0)
			db.cachesOthers(t)
			if n := write("others"); n < 4 {
				t.Fatalf("%d commands for a table that is cached by clause", n)
			}
		})
	}
}

// catalogLoaded has the catalogue read: without it a write is one of everything.
func (i *instance) catalogLoaded(t testing.TB) {
	t.Helper()
	if i.cache.catalog.get(context.WithValue(context.Background(), patientKey{}, true), true) == nil {
		t.Fatal("no catalogue")
	}
}

// One instance caches a table by clause that the other has never read.
func TestC04ATableCachedByClauseElsewhereIsInvalidated(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := others(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, a, b)
	a.catalogLoaded(t)
	a.enlisted(t)
	must(t, a.Exec("UPDATE others SET n = 1").Error)
	equal(t, "writes untold", a.cache.Stats().Untold, 1)
	b.cachesOthers(t)
	for i := int64(2); i < 20; i++ {
		must(t, a.Exec("UPDATE others SET n = ?", i).Error)
		n, _ := b.n(t)
		equal(t, "b reads", n, i)
		b.n(t)
	}
	equal(t, "writes untold", a.cache.Stats().Untold, 1)
	if s := b.cache.Stats(); s.L1Hits+s.L2Hits < 10 {
		t.Fatalf("hardly a hit: %+v", s)
	}
}

// The first fill of a table waits for writes that were left out and have not
// committed yet.
func TestC01AFirstFillWaitsForAWriteThatIsNotTold(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := others(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, a, b)
	a.catalogLoaded(t)
	a.enlisted(t)
	called := 0
	beforeCommit(t, a, func() {
		called++
		if called > 1 {
			return
		}
		for end := time.Now().Add(3 * rosterEvery); time.Now().Before(end); {
			n, _ := b.n(t)
			equal(t, "b reads", n, 0)
		}
		equal(t, "b's fills while the write is under way", b.cache.Stats().Fills, 0)
	})
	must(t, a.Exec("UPDATE others SET n = 1").Error)
	equal(t, "the watch was called", called, 1)
	n, _ := b.n(t)
	equal(t, "b reads", n, 1)
	b.cachesOthers(t)
	must(t, a.Exec("UPDATE others SET n = 2").Error)
	n, _ = b.n(t)
	equal(t, "b reads", n, 2)
}

// An instance that died may have a COMMIT under way for as long as a mark stands.
func TestC02ADeadInstanceIsWaitedFor(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := others(t)
	b := open(t, dsn, Config{Redis: rdb, Name: name})
	ready(t, b)
	dead := &rosterStore{client: rdb, key: b.cache.names.key, instance: "dead", stay: 1500 * time.Millisecond, keep: time.Hour}
	a, err := dead.ask(context.Background(), rosterQuestion{})
	must(t, err)
	died := time.Now()
	a, err = dead.ask(context.Background(), rosterQuestion{acknowledged: a.token})
	must(t, err)
	equal(t, "enlisted", a.enlisted, true)
	b.cachesOthers(t)
	if waited := time.Since(died); waited < dead.stay-50*time.Millisecond {
		t.Fatalf("waited only %v", waited)
	}
}

// A roster that Redis has lost: what was cached under it counts no more, as others
// may have written it untold.
func TestC06LostRosterVoidsWhatWasCachedUnderIt(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := others(t)
	b := open(t, dsn, Config{Redis: rdb, Name: name})
	ready(t, b)
	b.cachesOthers(t)
	exec(t, dsn, "UPDATE others SET n = 9") // nobody is told
	n, queried := b.n(t)
	equal(t, "b reads", n, 0)
	equal(t, "from the database", queried, false)
	must(t, rdb.Del(context.Background(), b.cache.names.key).Err())
	eventually(t, "b reads the database", 30*time.Second, func() bool { n, _ := b.n(t); return n == 9 })
	b.cachesOthers(t)
}

// A young roster may have forgotten instances that still leave out telling.
func TestC06YoungRosterIsNotUsed(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	b := openPrepared(t, others(t), Config{Redis: rdb, Name: name}, &gorm.Config{}, func(c *Cache) { c.names.settle = rosterSettle })
	began := time.Now()
	b.cachesOthers(t)
	if took := time.Since(began); took < rosterLease {
		t.Fatalf("cached after %v", took)
	}
	ready(t, b)
	_, queried := b.n(t)
	equal(t, "queried", queried, false)
}

// Another instance's first read waits for it, for less than Config.Timeout.
func TestRosterAcknowledgesAtOnceWhatItLearns(t *testing.T) {
	t.Parallel()
	r := newRoster(func() int64 { return 0 })
	m := newMirror(false)
	r.cellOf = func(tag string) *cell { return m.cell(tag, true) }
	r.schema.present = func() *catalog { return nil }
	var acknowledged []string
	r.ask = func(_ context.Context, q rosterQuestion) (rosterAnswer, error) {
		acknowledged = append(acknowledged, q.acknowledged)
		return rosterAnswer{born: "x", token: "1", enlisted: true, settled: true, all: []string{tableTag("a")}}, nil
	}
	equal(t, "asked soon again", r.renew(context.Background()), false)
	equal(t, "acknowledged", strings.Join(acknowledged, ","), ",1")
	r.renew(context.Background())
	equal(t, "acknowledged when there is nothing new", strings.Join(acknowledged, ","), ",1,1")
}

func TestRosterLeavesOutOnlyWhileItIsEnlisted(t *testing.T) {
	t.Parallel()
	now := int64(0)
	m := newMirror(false)
	r := newRoster(func() int64 { return now })
	r.cellOf = func(tag string) *cell { return m.cell(tag, true) }
	a, b, every := tableTag("a"), tableTag("b"), everyTag
	cat := &catalog{schema: mint()}
	r.schema.present, r.schema.drop = func() *catalog { return nil }, func(*catalog) {}
	told := func(tags ...string) (string, *omission) {
		told, o := r.omit(tags, cat)
		return strings.Join(told, " "), o
	}
	answer := rosterAnswer{born: "x", token: "1", enlisted: true, settled: true, all: []string{a}, schema: cat.schema}
	text, o := told(a, b)
	equal(t, "before the first answer", text, a+" "+b)
	equal(t, "left out", len(o.tags), 0)
	r.take(rosterQuestion{}, answer, now)
	text, o = told(a, b, every)
	equal(t, "enlisted", text, a+" "+every)
	equal(t, "sound", r.end(o), true)
	_, o = told(b)
	now += int64(rosterLease)
	equal(t, "sound when the lease has run out", r.end(o), false)
	text, _ = told(b)
	equal(t, "the lease has run out", text, b)
	r.take(rosterQuestion{}, answer, now)
	_, o = told(b)
	now += int64(rosterLease) + 1
	r.take(rosterQuestion{}, answer, now)
	equal(t, "sound with a gap between two leases", r.end(o), false)
	_, o = told(b)
	lost := answer
	lost.born = "y"
	r.take(rosterQuestion{}, lost, now)
	equal(t, "sound with another roster", r.end(o), false)
	answer.all = []string{a, b}
	_, o = told(b)
	r.take(rosterQuestion{}, answer, now)
	equal(t, "held back", r.underWayLocked(), true)
	r.end(o)
	equal(t, "held back when the write has ended", r.underWayLocked(), false)
	text, _ = told(b)
	equal(t, "once it is known", text, b)
}

package cachehook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// kin makes parents and children that no foreign key joins yet, and a table that a
// partitioned one may take in.
func kin(t testing.TB) (dsn string) {
	dsn = database(t)
	exec(t, dsn, `CREATE TABLE parents (id bigint PRIMARY KEY, n bigint)`, `INSERT INTO parents SELECT i, 0 FROM generate_series(1, 1000) i`,
		`CREATE TABLE children (parent_id bigint, n bigint)`, `INSERT INTO children SELECT i, 0 FROM generate_series(1, 1000) i`,
		`CREATE FUNCTION rid() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM children WHERE parent_id = OLD.id; RETURN OLD; END'`,
		`CREATE TABLE halves (id bigint, n bigint) PARTITION BY RANGE (id)`, `CREATE TABLE lower (id bigint, n bigint)`,
		`INSERT INTO lower VALUES (1, 0)`)
	return dsn
}

const cascade = `ALTER TABLE children ADD CONSTRAINT kin FOREIGN KEY (parent_id) REFERENCES parents ON DELETE CASCADE NOT VALID`

// changesOfSchema are what makes a write change more than it did.
var changesOfSchema = map[string]struct{ ddl, write, read string }{
	"foreign key": {cascade, `DELETE FROM parents WHERE id = 1`, `SELECT count(*) FROM children WHERE parent_id = 1`},
	"trigger": {
		`CREATE TRIGGER rid AFTER DELETE ON parents FOR EACH ROW EXECUTE FUNCTION rid()`,
		`DELETE FROM parents WHERE id = 1`, `SELECT count(*) FROM children WHERE parent_id = 1`,
	},
	"partition": {
		`ALTER TABLE halves ATTACH PARTITION lower FOR VALUES FROM (0) TO (100)`,
		`DELETE FROM halves WHERE id = 1`, `SELECT count(*) FROM lower WHERE id = 1`,
	},
}

// count reads a number, by clause, and tells whether the database was asked.
func (i *instance) count(t testing.TB, query string, args ...any) (n int64, queried bool) {
	t.Helper()
	before := i.seen.queries.Load()
	must(t, i.Clauses(TTL(time.Minute)).Raw(query, args...).Scan(&n).Error)
	return n, i.seen.queries.Load() > before
}

// counts waits until the query is served from the cache, and has that answer.
func (i *instance) counts(t testing.TB, want int64, query string) {
	t.Helper()
	eventually(t, "served: "+query, 60*time.Second, func() bool {
		n, queried := i.count(t, query)
		equal(t, query, n, want)
		return !queried
	})
}

// stalled is an instance whose roster learns nothing while it is held.
type stalled struct {
	*instance
	holding atomic.Pointer[chan struct{}]
}

func openStalled(t testing.TB, dsn string, cfg Config) *stalled {
	s := &stalled{}
	s.instance = openPrepared(t, dsn, cfg, &gorm.Config{SkipDefaultTransaction: true}, func(c *Cache) {
		ask := c.roster.ask
		c.roster.lease, c.names.stay = time.Minute, time.Minute // it was heard of just now, and is a little slow
		c.roster.ask = func(ctx context.Context, q rosterQuestion) (rosterAnswer, error) {
			if held := s.holding.Load(); held != nil {
				select {
				case <-*held:
				case <-ctx.Done():
					return rosterAnswer{}, ctx.Err()
				}
			}
			return ask(ctx, q)
		}
	})
	return s
}

func (s *stalled) hold() (release func()) {
	held := make(chan struct{})
	s.holding.Store(&held)
	return func() { s.holding.Store(nil); close(held) }
}

// openUnknown opens an instance that no roster knows, so that nobody waits for it.
func openUnknown(t testing.TB, dsn string, cfg Config) *instance {
	t.Helper()
	return openPrepared(t, dsn, cfg, &gorm.Config{SkipDefaultTransaction: true}, func(c *Cache) {
		c.roster.ask = func(context.Context, rosterQuestion) (rosterAnswer, error) {
			return rosterAnswer{}, errors.New("cut off")
		}
	})
}

// Another instance changes the schema, and has not been heard of by one that asks at
// each hit, and so has no channel. Nobody caches what its write changes now, told or
// left out, before it goes by the new schema.
func TestC04AWriterByAnOlderSchemaIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, kind := range changesOfSchema {
		for _, told := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/told %v", name, told), func(t *testing.T) {
				t.Parallel()
				rdb, space := client(t)
				dsn := kin(t)
				a := open(t, dsn, Config{Redis: rdb, Name: space, Timeout: 500 * time.Millisecond})
				b := openStalled(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
				ready(t, a, b.instance)
				a.counts(t, 1, kind.read)
				if told {
					a.counts(t, 1000, `SELECT count(*) FROM parents`)
					a.counts(t, 0, `SELECT count(*) FROM halves`)
				}
				b.catalogLoaded(t)
				b.enlisted(t)
				b.counts(t, 1, kind.read) // knows what a caches
				release := b.hold()
				must(t, a.Exec(kind.ddl).Error)
				for range 10 {
					n, queried := a.count(t, kind.read)
					equal(t, "a reads", n, 1)
					equal(t, "a asks the database", queried, true)
				}
				must(t, b.Exec(kind.write).Error)
				equal(t, "untold", b.cache.Stats().Untold > 0, !told)
				n, _ := a.count(t, kind.read)
				equal(t, "a reads", n, 0)
				release()
				a.counts(t, 0, kind.read)
				b.counts(t, 0, kind.read)
			})
		}
	}
}

// One that nobody waits for sees in Redis that its catalogue is old when it tells.
func TestC04AWriterByAnOlderSchemaLooks(t *testing.T) {
	t.Parallel()
	for name, kind := range changesOfSchema {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, space := client(t)
			dsn := kin(t)
			a := open(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
			b := openUnknown(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
			ready(t, a)
			b.catalogLoaded(t)
			must(t, a.Exec(kind.ddl).Error)
			a.counts(t, 1, kind.read)
			marked := false
			beforeCommit(t, b, func() {
				marked = rdb.HLen(context.Background(), b.cache.store.(*redisStore).tagKey(everyTag)).Val() > 1
			})
			must(t, b.Exec(kind.write).Error)
			n, _ := a.count(t, kind.read)
			equal(t, "a reads", n, 0)
			equal(t, "everything is marked before COMMIT", marked, true)
		})
	}
}

// The mark of DDL stands, whose process has died after its COMMIT: the stamp is still
// that of before.
func TestC04AWriterLooksAtTheMarkOfDDLToo(t *testing.T) {
	t.Parallel()
	rdb, space := client(t)
	dsn := kin(t)
	a := open(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
	b := openUnknown(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
	ready(t, a)
	a.counts(t, 1, changesOfSchema["foreign key"].read) // everything has a stamp now
	b.catalogLoaded(t)
	equal(t, "the catalogue has a stamp", b.cache.catalog.present.Load().schema != stamp{}, true)
	store := b.cache.store.(*redisStore)
	must(t, errOf(store.mark(context.Background(), []string{schemaTag}, "dead", false)))
	exec(t, dsn, cascade)
	marked := false
	beforeCommit(t, b, func() {
		marked = rdb.HLen(context.Background(), store.tagKey(everyTag)).Val() > 1
	})
	must(t, b.Exec(`DELETE FROM parents WHERE id = 1`).Error)
	equal(t, "everything is marked before COMMIT", marked, true)
}

// A write that Redis was not told of goes by an older schema, which shows when Redis
// can be asked again. Until it was told this instance serves nothing.
func TestC04AWriteByAnOlderSchemaThatIsToldLaterTellsOfEverything(t *testing.T) {
	t.Parallel()
	_, space := client(t)
	server := own(t)
	proxy := testbed.NewProxy(t, server.Addr())
	dsn := kin(t)
	log := &lines{}
	a := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Name: space, Lease: RevalidateAlways})
	b := openUnknown(t, dsn, Config{Redis: clientOf(t, proxy.Addr()), Name: space, Lease: RevalidateAlways, Logger: slog.New(slog.NewTextHandler(log, nil))})
	ready(t, a)
	b.catalogLoaded(t)
	kind := changesOfSchema["foreign key"]
	a.counts(t, 1, kind.read)
	proxy.Cut()
	must(t, a.Exec(kind.ddl).Error)
	a.counts(t, 1, kind.read)
	must(t, b.Exec(kind.write).Error)
	eventually(t, "b serves nothing", time.Minute, func() bool { return b.cache.every.busy.Load() > 0 })
	must(t, proxy.Restore())
	eventually(t, "Redis has been told", time.Minute, func() bool { return log.count("Redis has been told of all writes") > 0 })
	n, _ := a.count(t, kind.read)
	equal(t, "a reads", n, 0)
	equal(t, "b serves nothing still", b.cache.every.busy.Load() > 0, false)
}

// slow makes a deletion of children take a while, behind its effects.
func slow(t testing.TB, dsn string) {
	exec(t, dsn, `CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'`,
		`CREATE TRIGGER nap AFTER DELETE ON children FOR EACH STATEMENT EXECUTE FUNCTION nap()`)
}

// An autocommit DELETE has been told of, or left out, by the schema of before, and
// then waits for the lock of the ALTER TABLE: it runs by the new one.
func TestC04AWriteThatWaitsForTheLockOfDDL(t *testing.T) {
	t.Parallel()
	for name, enlisted := range map[string]bool{"waited for": true, "nobody waits for it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, space := client(t)
			dsn := kin(t)
			slow(t, dsn)
			a := open(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
			cfg := Config{Redis: rdb, Name: space, Lease: RevalidateAlways}
			var b *instance
			if enlisted {
				b = openWith(t, dsn, cfg, &gorm.Config{SkipDefaultTransaction: true})
				ready(t, b)
				b.catalogLoaded(t)
				b.enlisted(t)
			} else {
				b = openUnknown(t, dsn, cfg)
				b.catalogLoaded(t)
			}
			ready(t, a)
			read, write := changesOfSchema["foreign key"].read, changesOfSchema["foreign key"].write
			a.counts(t, 1, read)
			done := make(chan error, 1)
			tx := a.Begin()
			must(t, tx.Exec(cascade).Error)
			go func() { done <- b.Exec(write).Error }()
			eventually(t, "the DELETE waits for the lock", time.Minute, func() bool {
				var waiting int64
				must(t, a.Raw(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM parents%' AND pg_blocking_pids(pid) @> ARRAY[(SELECT l.pid FROM pg_locks l WHERE l.relation = 'parents'::regclass AND l.mode = 'ShareRowExclusiveLock' AND l.granted LIMIT 1)]`).Scan(&waiting).Error)
				return waiting > 0
			})
			must(t, tx.Commit().Error)
			cached := false
			for over := false; !over; {
				select {
				case err := <-done:
					must(t, err)
					over = true
				default:
					_, queried := a.count(t, read)
					cached = cached || !queried
				}
			}
			n, _ := a.count(t, read)
			equal(t, "a reads", n, 0)
			equal(t, "a could cache before the DELETE ended", cached, !enlisted)
			a.counts(t, 0, read)
		})
	}
}

// The process of the DDL has died after its COMMIT, and a catalogue was read between
// its mark and that.
func TestC02ACatalogueReadBeforeTheCommitOfDDLDoesNotStay(t *testing.T) {
	t.Parallel()
	for name, enlisted := range map[string]bool{"waited for": true, "nobody waits for it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, space := client(t)
			dsn := kin(t)
			a := open(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
			cfg := Config{Redis: rdb, Name: space, Lease: RevalidateAlways}
			b := openUnknown(t, dsn, cfg)
			if enlisted {
				b = open(t, dsn, cfg)
				ready(t, b)
			}
			ready(t, a)
			kind := changesOfSchema["foreign key"]
			a.counts(t, 1, kind.read)
			dead := *a.cache.store.(*redisStore)
			dead.markTTL = 2 * time.Second
			must(t, errOf(dead.mark(context.Background(), []string{schemaTag}, "dead", false)))
			b.cache.catalog.forget() // as if it had not been read before
			b.catalogLoaded(t)
			equal(t, "the catalogue's stamp", b.cache.catalog.present.Load().schema, stamp{})
			exec(t, dsn, kind.ddl)
			a.counts(t, 1, kind.read) // when the mark has run out
			must(t, b.Exec(kind.write).Error)
			n, _ := a.count(t, kind.read)
			equal(t, "a reads", n, 0)
			a.counts(t, 0, kind.read)
			b.catalogLoaded(t)
			eventually(t, "the catalogue has a stamp, before it would be read anew for its age", catalogAge*7/10, func() bool {
				cat := b.cache.catalog.get(context.Background(), true)
				return cat != nil && cat.schema != stamp{}
			})
		})
	}
}

// A transaction's statement has run by a schema that was another one at COMMIT.
func TestC04ATransactionAcrossDDLTellsOfEverything(t *testing.T) {
	t.Parallel()
	rdb, space := client(t)
	dsn := kin(t)
	a := open(t, dsn, Config{Redis: rdb, Name: space})
	ready(t, a)
	a.catalogLoaded(t)
	a.counts(t, 1, `SELECT count(*) FROM children WHERE parent_id = 1`) // there is a stamp to be changed
	toldAll := func(between func()) bool {
		every := func() string {
			return rdb.HGet(context.Background(), a.cache.store.(*redisStore).tagKey(everyTag), "s").Val()
		}
		var before string
		must(t, a.Transaction(func(tx *gorm.DB) error {
			must(t, tx.Exec(`UPDATE parents SET n = n + 1 WHERE id = 1`).Error)
			between()
			before = every() // DDL has told of everything, too
			return nil
		}))
		return every() != before
	}
	equal(t, "everything, without DDL", toldAll(func() {}), false)
	equal(t, "everything, with DDL", toldAll(func() {
		must(t, a.Exec(`CREATE TABLE another (id bigint)`).Error)
		a.catalogLoaded(t)
	}), true)
}

// deadlocked is err, unless DDL has made the statement fail, which takes locks of two
// tables one after the other.
func deadlocked(err error) error {
	if err != nil && strings.Contains(err.Error(), "40P01") {
		return nil
	}
	return err
}

// Two instances switch a foreign key's action on and off while others delete and read.
func TestC04DDLUnderTrafficLeavesNothingStale(t *testing.T) {
	t.Parallel()
	rdb, space := client(t)
	dsn := kin(t)
	const drop = `ALTER TABLE children DROP CONSTRAINT IF EXISTS kin`
	cfg := Config{Redis: rdb, Name: space, Lease: RevalidateAlways, Timeout: 250 * time.Millisecond} // nobody waits longer for the roster
	togglers := []*instance{open(t, dsn, cfg), open(t, dsn, cfg)}
	reader := open(t, dsn, cfg)
	writers := []*instance{open(t, dsn, cfg), openWith(t, dsn, cfg, &gorm.Config{SkipDefaultTransaction: true})}
	ready(t, append(append(togglers, reader), writers...)...)
	ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
	defer stop()
	ended := make(chan error, len(togglers)+len(writers))
	for i, db := range togglers {
		go func() {
			for n := i; ctx.Err() == nil; n++ {
				err := db.Transaction(func(tx *gorm.DB) error {
					if err := tx.Exec(drop).Error; err != nil || n%2 == 0 {
						return err
					}
					return tx.Exec(cascade).Error
				})
				if err = deadlocked(err); err != nil {
					ended <- err
					return
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(100+100*(n%5)) * time.Millisecond):
				}
			}
			ended <- nil
		}()
	}
	var next, gone atomic.Int64
	const read = `SELECT count(*) FROM children WHERE parent_id = ?`
	for _, db := range writers {
		go func() {
			for ctx.Err() == nil {
				id := next.Add(1)
				var before, after, truth int64
				err := errors.Join(
					reader.Clauses(TTL(time.Minute)).Raw(read, id).Scan(&before).Error,
					deadlocked(db.Exec(`DELETE FROM parents WHERE id = ?`, id).Error),
					reader.Clauses(TTL(time.Minute)).Raw(read, id).Scan(&after).Error,
					reader.WithContext(Skip(context.Background())).Raw(read, id).Scan(&truth).Error)
				if err == nil && after != truth {
					err = fmt.Errorf("parent %d: %d children are shown, there are %d", id, after, truth)
				}
				if err != nil || id == 1000 {
					ended <- err
					return
				}
				gone.Add(1 - truth)
			}
			ended <- nil
		}()
	}
	for range len(togglers) + len(writers) {
		must(t, <-ended)
	}
	s := reader.cache.Stats()
	t.Logf("%d parents deleted, %d with their children; %d fills, %d hits", next.Load(), gone.Load(), s.Fills, s.L1Hits+s.L2Hits)
	if gone.Load() == 0 || s.Fills < 20 || s.L1Hits+s.L2Hits == 0 {
		t.Fatal("nothing is shown by that")
	}
}

// A value by hand that depends on tables is kept by the same rules.
func TestC04AValueByHandWaitsForAWriterByAnOlderSchema(t *testing.T) {
	t.Parallel()
	rdb, space := client(t)
	dsn := kin(t)
	a := open(t, dsn, Config{Redis: rdb, Name: space, Timeout: 500 * time.Millisecond})
	b := openStalled(t, dsn, Config{Redis: rdb, Name: space, Lease: RevalidateAlways})
	ready(t, a, b.instance)
	loads := 0
	fetch := func() (n int64) {
		n, err := Fetch(context.Background(), a.cache, "orphans", time.Minute, []string{Table("children")}, func(ctx context.Context) (n int64, err error) {
			loads++
			return n, a.WithContext(Skip(ctx)).Raw(`SELECT count(*) FROM children WHERE parent_id = 1`).Scan(&n).Error
		})
		must(t, err)
		return n
	}
	kept := func() bool { before := loads; fetch(); return loads == before }
	set := func(key string) bool {
		must(t, a.cache.Set(context.Background(), key, []byte("1"), time.Minute, Table("children")))
		_, ok := a.cache.Get(context.Background(), key)
		return ok
	}
	eventually(t, "it is kept", time.Minute, kept)
	b.catalogLoaded(t)
	b.enlisted(t)
	release := b.hold()
	must(t, a.Exec(cascade).Error)
	for range 10 {
		equal(t, "kept", kept(), false)
	}
	equal(t, "kept by Set", set("before"), false)
	must(t, b.Exec(`DELETE FROM parents WHERE id = 1`).Error)
	equal(t, "untold", b.cache.Stats().Untold, 1)
	equal(t, "a fetches", fetch(), 0)
	release()
	eventually(t, "it is kept again", time.Minute, func() bool { equal(t, "a fetches", fetch(), 0); return kept() })
	eventually(t, "it is kept by Set again", time.Minute, func() bool { return set("after") })
}

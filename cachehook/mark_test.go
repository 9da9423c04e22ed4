package cachehook

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// commitWatch runs a function between the cache's mark and COMMIT.
type commitWatch struct{ f func() }

func (w *commitWatch) Begin(*hook.Txn) {}
func (w *commitWatch) BeforeCommit(context.Context, *hook.Txn) error {
	w.f()
	return nil
}
func (w *commitWatch) Ended(*hook.Txn, hook.TxnOutcome) {}

func beforeCommit(t *testing.T, db *instance, f func()) {
	t.Helper()
	remove, err := db.cache.hub.Load().Register(&commitWatch{f})
	must(t, err)
	t.Cleanup(remove)
}

// While a mark stands nobody serves, nobody fills, and reads go to the primary.
func TestC02NothingIsServedOrFilledWhileAMarkStands(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, a, b)
	b.price(t, 1)
	equal(t, "b hits", b.price(t, 1), 10)
	fills, queries := b.cache.Stats().Fills, b.seen.queries.Load()
	called := false
	beforeCommit(t, a, func() {
		called = true
		var primary bool
		f := func(r *hook.Record) { primary = r.NeedPrimary }
		b.seen.done.Store(&f)
		equal(t, "b reads the old row", b.price(t, 1), 10)
		equal(t, "b asks for the primary", primary, true)
		equal(t, "a reads the old row", a.price(t, 1), 10)
		b.seen.done.Store(nil)
	})
	a.setPrice(t, 1, 77)
	equal(t, "the watch was called", called, true)
	equal(t, "b's queries while the mark stood", b.seen.queries.Load(), queries+1)
	equal(t, "b's fills while the mark stood", b.cache.Stats().Fills, fills)
	equal(t, "a's fills while the mark stood", a.cache.Stats().Fills, 0)
	equal(t, "b", b.price(t, 1), 77)
	equal(t, "a", a.price(t, 1), 77)
	marks, err := rdb.HLen(context.Background(), "infra:"+name+":cache:t:"+a.table(t, "products")).Result()
	must(t, err)
	equal(t, "fields of the tag, marks included", marks, 1)
}

// Who meets a mark reads what the writer may have committed. The instance must
// not serve anybody what it knew before, though the mark's message has not come.
func TestC04MetMarkIsAsGoodAsItsMessage(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	db := open(t, dsn, Config{Redis: rdb, Name: name, Lease: time.Minute})
	ready(t, db)
	db.price(t, 1)
	equal(t, "hit", db.price(t, 1), 10)
	table := db.cache.mirror.cell(db.table(t, "products"), true)
	_, known := db.cache.mirror.present(table)
	equal(t, "the stamp is known", known, true)
	silent := *db.cache.store.(*redisStore)
	silent.channel = ""
	must(t, errOf(silent.mark(context.Background(), []string{table.tag, wholeTag(table.tag)}, "another", false)))
	exec(t, dsn, `UPDATE products SET price = 77 WHERE id = 1`)
	equal(t, "the message has not come", db.price(t, 1), 10)
	// One who finds the channel's proof too old asks.
	q := &query{cells: []*cell{db.cache.every, table}, tags: []string{everyTag, table.tag}, key: []byte("k")}
	equal(t, "is sent to the primary", db.cache.ask(context.Background(), q, nil, missCold).primary, true)
	for range 3 {
		equal(t, "after a read that was sent to the primary", db.price(t, 1), 77)
	}
	_, known = db.cache.mirror.present(db.cache.every)
	equal(t, "tags without a mark are known still", known, true)
}

// An autocommit write marks too, before it is sent.
func TestC02AutocommitWritesMark(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	db := open(t, database(t), Config{Redis: rdb, Name: name})
	ready(t, db)
	var fields int64
	beforeCommit(t, db, func() {
		fields, _ = rdb.HLen(context.Background(), "infra:"+name+":cache:t:"+db.table(t, "products")).Result()
	})
	db.price(t, 1)
	must(t, db.Exec("UPDATE products SET price = 3 WHERE id = 1").Error)
	equal(t, "the stamp and a mark", fields, 2)
	equal(t, "price", db.price(t, 1), 3)
}

// A mark is renewed while a slow COMMIT runs.
func TestC02MarkOutlivesASlowCommit(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
	ready(t, a, b)
	a.cache.markTTL = 300 * time.Millisecond
	a.cache.store.(*redisStore).markTTL = a.cache.markTTL
	b.price(t, 1)
	beforeCommit(t, a, func() {
		fills := b.cache.Stats().Fills
		for end := time.Now().Add(900 * time.Millisecond); time.Now().Before(end); {
			b.price(t, 1)
		}
		equal(t, "b's fills during a COMMIT of 900 ms", b.cache.Stats().Fills, fills)
	})
	a.setPrice(t, 1, 77)
	equal(t, "b", b.price(t, 1), 77)
}

// COMMIT's answer is lost: it counts as committed.
func TestC02LostAnswerOfCommit(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	proxy := testbed.NewProxy(t, testbed.SharedCluster(t).Primary().Addr())
	through := strings.Replace(dsn, testbed.SharedCluster(t).Primary().Addr(), proxy.Addr(), 1)
	for _, cut := range []struct {
		name string
		f    func(string)
		want int64
	}{{"before", proxy.CutBefore, 10}, {"after", proxy.CutAfter, 77}} {
		db := open(t, through, Config{})
		db.price(t, 1)
		equal(t, "hit", db.price(t, 1), 10)
		cut.f("commit")
		if err := db.Model(&product{ID: 1}).Update("price", 77).Error; err == nil {
			t.Fatalf("%s: the cut was not noticed", cut.name)
		}
		equal(t, "price after a COMMIT that was cut "+cut.name, db.price(t, 1), cut.want)
	}
}

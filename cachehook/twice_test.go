package cachehook

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// repeatGate holds a client up before it sends again what broke off.
type repeatGate struct {
	armed  atomic.Bool
	broken chan struct{} // closed when it has broken off
	goOn   chan struct{}
}

func (g *repeatGate) Allow() error {
	select {
	case <-g.broken:
		<-g.goOn
	default:
	}
	return nil
}

func (g *repeatGate) ReportResult(err error) {
	if err != nil && err != redis.Nil && g.armed.CompareAndSwap(true, false) { //nolint:errorlint // the client's own value
		close(g.broken)
	}
}

// throughGate is a client whose next command with the pattern arrives and is
// answered, but the answer is lost; it is sent again when goOn is closed.
func throughGate(t *testing.T) (rdb *redis.Client, g *repeatGate, lose func(pattern string)) {
	t.Helper()
	testbed.RequireRedis(t)
	proxy := testbed.NewProxy(t, testbed.SharedRedis(t).Addr())
	g = &repeatGate{broken: make(chan struct{}), goOn: make(chan struct{})}
	rdb = redis.NewClient(&redis.Options{Addr: proxy.Addr(), ReadTimeout: time.Minute, MaxRetries: 3, Limiter: g})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb, g, func(pattern string) {
		g.armed.Store(true)
		proxy.CutAfter(pattern)
	}
}

func receive(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal(what, "did not come")
	}
}

// oneThroughGate opens three instances, of which the first asks Redis through a gate.
func oneThroughGate(t *testing.T) (a, b, c *instance, g *repeatGate, lose func(pattern string)) {
	t.Helper()
	rdb, name := client(t)
	gated, g, lose := throughGate(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name, Lease: RevalidateAlways, Timeout: 10 * time.Second}
	b, c = open(t, dsn, cfg), open(t, dsn, cfg)
	cfg.Redis = gated
	a = open(t, dsn, cfg)
	ready(t, a, b, c)
	return a, b, c, g, lose
}

// A new stamp arrives twice, because the answer to the first time was lost, and
// somebody else has written in between: what was read before that stays invalid.
func TestC04StampThatArrivesTwiceRevivesNothing(t *testing.T) {
	t.Parallel()
	a, b, c, gate, lose := oneThroughGate(t)
	equal(t, "b", b.price(t, 1), 10)
	c.setPrice(t, 1, 20) // Redis knows the script now
	equal(t, "b", b.price(t, 1), 20)

	lose(anyServer.bump.Hash())
	done := make(chan error, 1)
	go func() { done <- a.Model(&product{ID: 1}).Update("price", 77).Error }()
	receive(t, "the cut", gate.broken)
	equal(t, "b after the first arrival", b.price(t, 1), 77)
	hits := b.cache.Stats().L1Hits
	equal(t, "b again", b.price(t, 1), 77)
	equal(t, "b has kept it", b.cache.Stats().L1Hits > hits, true)
	c.setPrice(t, 1, 88)
	close(gate.goOn)
	must(t, <-done)
	equal(t, "b after the second arrival", b.price(t, 1), 88)
}

// The same of a stamp that a reader makes for a tag without one, when the tag is
// evicted in between.
func TestC04StampOfAReaderThatArrivesTwiceRevivesNothing(t *testing.T) {
	t.Parallel()
	table := tableTag("products")
	for name, tag := range map[string]string{"table": table, "whole": wholeTag(table), "row": rowTag(table, "1")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stampArrivesTwice(t, tag)
		})
	}
}

func stampArrivesTwice(t *testing.T, tag string) {
	rdb, name := client(t)
	gated, gate, lose := throughGate(t)
	store := func(rdb redis.UniversalClient) *redisStore {
		r := newRedisStore(rdb)
		r.guard, r.prefix = newGuard(time.Minute, quiet), name+":"
		r.markTTL, r.tagTTL = markTTL, time.Hour
		t.Cleanup(r.guard.stop)
		return r
	}
	a, b := store(gated), store(rdb)
	ctx := context.Background()
	stampOf := func(r *redisStore, tag string) stamp {
		t.Helper()
		answer, err := r.lookup(ctx, []string{tag}, "")
		must(t, err)
		return answer.stamps[0]
	}
	stampOf(a, tableTag("other")) // it has a connection, and Redis the scripts
	stampOf(a, rowTag(tableTag("other"), "1"))
	if isRow(tag) {
		lose(a.tagKey(tag))
	} else {
		lose(anyServer.read.Hash())
	}
	twice := make(chan stamp, 1)
	go func() {
		answer, err := a.lookup(ctx, []string{tag}, "")
		if err != nil {
			t.Error(err)
			close(twice)
			return
		}
		twice <- answer.stamps[0]
	}()
	receive(t, "the cut", gate.broken)
	first := stampOf(b, tag)
	must(t, errOf(b.bump(ctx, []string{tag}, "", false)))
	must(t, rdb.Del(ctx, b.tagKey(tag)).Err())
	close(gate.goOn)
	if again := <-twice; again == first {
		t.Errorf("the stamp %v of before a write is back", again)
	}
}

// What a reader sees of that: it has kept a row under the stamp that another made for
// the row's tag, and the row is written, and its tag evicted, before the other's
// question arrives once more.
func TestC04RowIsNotServedAgainUnderAStampThatArrivesTwice(t *testing.T) {
	t.Parallel()
	a, b, c, gate, lose := oneThroughGate(t)
	c.catalogLoaded(t)               // so that it bumps the row
	equal(t, "a", a.price(t, 2), 20) // it has a connection, and Redis the scripts
	tag := a.cache.store.(*redisStore).tagKey(rowTag(a.table(t, "products"), "1"))

	lose(tag)
	done := make(chan int64, 1)
	go func() { done <- a.price(t, 1) }()
	receive(t, "the cut", gate.broken)
	equal(t, "b", b.price(t, 1), 10)
	hits := b.cache.Stats().L1Hits
	equal(t, "b again", b.price(t, 1), 10)
	equal(t, "b has kept it", b.cache.Stats().L1Hits > hits, true)
	c.setPrice(t, 1, 77)
	must(t, b.cache.cfg.Redis.Del(context.Background(), tag).Err())
	close(gate.goOn)
	equal(t, "a", <-done, 77)
	equal(t, "b after the second arrival", b.price(t, 1), 77)
}

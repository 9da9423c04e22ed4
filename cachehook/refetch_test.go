package cachehook

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/scope"
)

// loads counts calls of a function for Fetch, whose value is their number.
type loads struct {
	n    atomic.Int64
	err  atomic.Pointer[error]
	gate chan struct{} // nil: it does not wait
	ctx  atomic.Pointer[context.Context]
}

func (l *loads) load(ctx context.Context) (int64, error) {
	n := l.n.Add(1)
	l.ctx.Store(&ctx)
	if l.gate != nil && n > 1 {
		<-l.gate
	}
	if err := l.err.Load(); err != nil {
		return 0, *err
	}
	return n, nil
}

func TestFetchIsServedStaleWithinItsBoundWhileItIsLoadedAnew(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		cfg.Tables = map[string]Rule{"products": {StaleFor: 30 * time.Second}}
		db := open(t, database(t), cfg)
		ready(t, db)
		by := pass(db.cache)
		l := &loads{gate: make(chan struct{})}
		release := sync.OnceFunc(func() { close(l.gate) })
		defer release() // before Close waits for the load
		ctx, own, _ := scope.Begin(context.WithValue(t.Context(), scopeValue{}, "kept"), "request")
		defer own.End()
		fetch := func(options ...Option) int64 {
			t.Helper()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			v, err := Fetch(ctx, db.cache, "k", time.Minute, []string{Table("products"), "tag"}, l.load, options...)
			must(t, err)
			return v
		}
		equal(t, "at first", fetch(), 1)
		by(70 * time.Second) // of its minute and half a minute more
		for range 20 {
			equal(t, "while it is loaded anew", fetch(), 1)
		}
		eventually(t, "a load in the background", 30*time.Second, func() bool { return l.n.Load() == 2 })
		if behind := *l.ctx.Load(); behind.Err() != nil || scope.From(behind) != nil || behind.Value(scopeValue{}) != "kept" {
			t.Errorf("the context of a load in the background: error %v, scope %v", behind.Err(), scope.From(behind))
		}
		release()
		eventually(t, "the new value", 30*time.Second, func() bool { return fetch() == 2 })
		equal(t, "loads", l.n.Load(), 2)
		s := db.cache.Stats()
		equal(t, "refreshes", s.Refreshes, 1)
		if s.Stale < 20 {
			t.Errorf("%d stale hits", s.Stale)
		}

		by(70 * time.Second)
		must(t, db.cache.Invalidate(ctx, "tag"))
		equal(t, "stale, but invalidated", fetch(), 3)
		by(70 * time.Second)
		if cfg.Redis == nil { // the clock of Redis goes on as it does
			equal(t, "stale, and not allowed", fetch(StaleFor(0)), 4)
			by(91 * time.Second)
			equal(t, "beyond the bound", fetch(), 5)
		}
	})
}

type scopeValue struct{}

// TestFetchIsStaleForWhatOptionsAndTheStrictestRuleSay: the options go before.
func TestFetchIsStaleForWhatOptionsAndTheStrictestRuleSay(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, "CREATE TABLE strict (id bigint)", "CREATE TABLE loose (id bigint)")
	db := open(t, dsn, Config{Tables: map[string]Rule{"products": {StaleFor: time.Minute}, "loose": {StaleFor: time.Hour}, "strict": {}}})
	by := pass(db.cache)
	for _, test := range []struct {
		key     string
		tags    []string
		options []Option
		after   time.Duration
		stale   bool
	}{
		{"rule", []string{Table("products")}, nil, 90 * time.Second, true},
		{"beyond", []string{Table("products")}, nil, 130 * time.Second, false},
		{"strictest", []string{Table("loose"), Table("products")}, nil, 130 * time.Second, false},
		{"none", []string{Table("loose"), Table("strict")}, nil, 70 * time.Second, false},
		{"no table", []string{"tag"}, nil, 70 * time.Second, false},
		{"option", []string{"tag"}, []Option{StaleFor(time.Minute)}, 90 * time.Second, true},
		{"stricter option", []string{Table("loose")}, []Option{StaleFor(0)}, 90 * time.Second, false},
		{"longer", []string{"tag"}, []Option{StaleFor(time.Minute), TTL(time.Hour)}, 53 * time.Minute, true},
	} {
		l := &loads{}
		fetch := func() int64 {
			v, err := Fetch(t.Context(), db.cache, test.key, time.Minute, test.tags, l.load, test.options...)
			must(t, err)
			return v
		}
		equal(t, test.key, fetch(), 1)
		by(test.after)
		equal(t, test.key+" is stale", fetch() == 1, test.stale)
	}
	l := &loads{}
	fetch := func() int64 {
		v, err := Fetch(t.Context(), db.cache, "tagged", time.Minute, nil, l.load, Tags("mine"))
		must(t, err)
		return v
	}
	fetch()
	must(t, db.cache.Invalidate(t.Context(), "mine"))
	equal(t, "after its tag's invalidation", fetch(), 2)
}

// TestFetchThatFailsInTheBackgroundIsNotTriedAtOnce: the old value goes on, and a
// panic is nobody's.
func TestFetchThatFailsInTheBackgroundIsNotTriedAtOnce(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	by := pass(db.cache)
	l := &loads{}
	panics := false
	fetch := func() int64 {
		t.Helper()
		v, err := Fetch(t.Context(), db.cache, "k", time.Minute, nil, func(ctx context.Context) (int64, error) {
			v, err := l.load(ctx)
			if panics {
				panic("boom")
			}
			return v, err
		}, StaleFor(time.Hour))
		must(t, err)
		return v
	}
	idle := func(n int64) {
		t.Helper()
		eventually(t, "the load's end", 30*time.Second, func() bool {
			db.cache.flights.mu.Lock()
			defer db.cache.flights.mu.Unlock()
			return l.n.Load() == n && len(db.cache.flights.flying) == 0
		})
	}
	fetch()
	by(2 * time.Minute)
	boom := errors.New("boom")
	l.err.Store(&boom)
	equal(t, "served", fetch(), 1)
	idle(2)
	equal(t, "served within the pause", fetch(), 1)
	idle(2)
	by(2 * time.Second)
	panics = true
	equal(t, "served after the pause", fetch(), 1)
	idle(3)
	panics = false
	l.err.Store(nil)
	by(2 * time.Second)
	equal(t, "served after a panic", fetch(), 1)
	idle(4)
	equal(t, "the new value", fetch(), 4)
}

// TestFetchInUseIsLoadedEarly: nobody waits for it, and its time never ends.
func TestFetchInUseIsLoadedEarly(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{EarlyRefresh: 1})
	by := pass(db.cache)
	l := &loads{}
	fetch := func() int64 {
		t.Helper()
		v, err := Fetch(t.Context(), db.cache, "k", time.Minute, nil, func(ctx context.Context) (int64, error) {
			v, err := l.load(ctx)
			by(100 * time.Millisecond) // which it takes
			return v, err
		})
		must(t, err)
		return v
	}
	equal(t, "at first", fetch(), 1)
	for end := lastExpiry(db.cache) - int64(300*time.Millisecond); db.cache.now() < end; {
		by(time.Duration(end - db.cache.now()))
	}
	eventually(t, "an early load", 30*time.Second, func() bool { fetch(); return l.n.Load() > 1 })
	eventually(t, "the new value", 30*time.Second, func() bool { return fetch() > 1 })
	if misses := db.cache.Stats().Misses; misses != 1 {
		t.Errorf("%d had to wait for a load", misses)
	}
}

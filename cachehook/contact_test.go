package cachehook

import (
	"context"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/testbed"
)

// C04: within the lease an instance may serve what is from before another's write,
// but not to work that has seen the write, or anything later, in the database.
func TestC04NoHitFallsBehindWhatItsSessionHasSeen(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server := testbed.SharedRedis(t)
	messages := testbed.NewProxy(t, server.Addr())
	dsn := database(t)
	name := namespace(t)
	a := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Name: name})
	b := open(t, dsn, Config{Redis: leftBehind{clientOf(t, server.Addr()), clientOf(t, messages.Addr())}, Name: name, Lease: time.Minute})
	ready(t, a, b)
	equal(t, "b fills", b.price(t, 1), 10)
	equal(t, "b hits", b.price(t, 1), 10)
	messages.Blackhole()
	a.setPrice(t, 1, 77)

	in := func(s context.Context) int64 {
		var p product
		must(t, b.WithContext(s).First(&p, 1).Error)
		return p.Price
	}
	begin := func() context.Context {
		ctx, s, _ := scope.Begin(t.Context(), "request")
		t.Cleanup(func() { s.End() })
		return ctx
	}
	equal(t, "a session that has seen nothing", in(begin()), 10)

	saw := begin()
	equal(t, "past the cache", in(Skip(saw)), 77)
	b.seen.mu.Lock()
	l1 := b.seen.outcomes[hook.L1]
	b.seen.mu.Unlock()
	equal(t, "a session that has seen the write", in(saw), 77)
	equal(t, "hits in memory", b.seen.count(hook.L1), l1)

	told := begin()
	hook.Touch(scope.From(told))
	equal(t, "a session that a token came to", in(told), 77)

	must(t, messages.Restore())
	eventually(t, "memory serves the session again", 30*time.Second, func() bool {
		before := b.seen.count(hook.L1)
		return in(saw) == 77 && b.seen.count(hook.L1) > before
	})
}

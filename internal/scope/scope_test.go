package scope

import (
	"context"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type counter struct{ of *Scope }

var testSlot = NewSlot(func(s *Scope) *counter { return &counter{of: s} })

func TestContextWithoutScopeGivesNil(t *testing.T) {
	t.Parallel()
	if s := From(t.Context()); s != nil {
		t.Fatalf("From = %v, want nil", s)
	}
}

func TestNestedBeginJoinsUntilTheScopeHasEnded(t *testing.T) {
	t.Parallel()
	ctx, outer, joined := Begin(t.Context(), "outer")
	if joined {
		t.Fatal("the first Begin joined a scope that does not exist")
	}
	_, inner, joined := Begin(ctx, "inner")
	if !joined || inner != outer {
		t.Fatalf("nested Begin: joined=%v same=%v, want both true", joined, inner == outer)
	}
	if got := outer.Name(); got != "outer" {
		t.Fatalf("joining renamed the scope to %q", got)
	}
	if !outer.End() || outer.End() {
		t.Fatal("End must report true once")
	}
	if _, next, joined := Begin(ctx, "next"); joined || next == outer {
		t.Fatal("a context that outlived its scope joined the ended scope")
	}
}

func TestSlotIsMadeOnceForAllGoroutinesOfAScope(t *testing.T) {
	t.Parallel()
	_, s, _ := Begin(context.Background(), "r")
	if testSlot.Peek(s) != nil {
		t.Fatal("Peek made a value")
	}
	var wg sync.WaitGroup
	got := make([]*counter, 16)
	for i := range got {
		wg.Go(func() { got[i] = testSlot.Get(s) })
	}
	wg.Wait()
	for _, c := range got {
		if c != got[0] || c.of != s {
			t.Fatal("goroutines of one scope hold different values")
		}
	}
	_, other, _ := Begin(context.Background(), "r")
	if testSlot.Get(other) == got[0] {
		t.Fatal("two scopes share a value")
	}
}

func BenchmarkFromAndGet(b *testing.B) {
	ctx, s, _ := Begin(context.Background(), "r")
	testSlot.Get(s)
	b.ReportAllocs()
	for b.Loop() {
		testSlot.Get(From(ctx))
	}
}

func TestWhatLeavesAScopeKeepsTheRestOfItsContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	ctx, s, _ := Begin(context.WithValue(t.Context(), key{}, 1), "request")
	left := Leave(ctx)
	if From(left) != nil || left.Value(key{}) != 1 || From(ctx) != s || s.Ended() {
		t.Fatalf("scope %v, value %v, before %v", From(left), left.Value(key{}), From(ctx))
	}
	if _, other, joined := Begin(left, "job"); joined || other == s {
		t.Fatal("what has left a scope joined it again")
	}
}

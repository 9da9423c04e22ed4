// Package scope holds the value that belongs to one request or job while it
// travels in a context. It knows no feature: each part of the plugin keeps its
// own state in a typed [Slot], created when the part first asks for it.
//
//	var tracker = scope.NewSlot(func(*scope.Scope) *state { return &state{} })
//
//	ctx, s := scope.Begin(ctx, "GET /orders")
//	tracker.Get(s).count++
package scope

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// maxSlots bounds the number of slots of a process. Slots are package
// variables, so the number is known when the program is written.
const maxSlots = 16

// Scope is one request or one job. It is safe for concurrent use; the
// goroutines of one request share it.
type Scope struct {
	name  atomic.Pointer[string]
	start time.Time
	ended atomic.Bool
	slots [maxSlots]atomic.Pointer[any]
}

type ctxKey struct{}

// Begin opens a scope and returns the context that carries it. A scope that
// the context already carries and that has not ended is joined rather than
// hidden; joined reports that, and the one who joined must not End it.
func Begin(ctx context.Context, name string) (_ context.Context, s *Scope, joined bool) {
	if s := From(ctx); s != nil && !s.Ended() {
		return ctx, s, true
	}
	s = &Scope{start: time.Now()}
	s.name.Store(&name)
	return context.WithValue(ctx, ctxKey{}, s), s, false
}

// From returns the scope of ctx, or nil.
func From(ctx context.Context) *Scope {
	s, _ := ctx.Value(ctxKey{}).(*Scope)
	return s
}

// Leave returns a context with all that ctx carries but the scope, for work that
// goes on when its request has ended.
func Leave(ctx context.Context) context.Context {
	return context.WithValue(ctx, ctxKey{}, (*Scope)(nil))
}

// Name is the route or job the scope was opened for, as last set.
func (s *Scope) Name() string { return *s.name.Load() }

// SetName renames the scope, for routers that know the matched pattern only
// after the request has been dispatched.
func (s *Scope) SetName(name string) { s.name.Store(&name) }

// Start is the time at which the scope was opened.
func (s *Scope) Start() time.Time { return s.start }

// End marks the scope as ended and reports whether this call did it. A context
// that outlives its request still carries the scope, but nothing is collected
// in it any more.
func (s *Scope) End() bool { return s.ended.CompareAndSwap(false, true) }

// Ended reports whether End has been called.
func (s *Scope) Ended() bool { return s.ended.Load() }

// Slot is a typed place in every scope. Make it once, in a package variable.
type Slot[T any] struct {
	index int
	make  func(*Scope) *T
}

var slotCount atomic.Int32

// NewSlot reserves a slot; mk makes its value for a scope that has none yet. It
// panics when a program declares more than 16 slots, which only its author can
// cause.
func NewSlot[T any](mk func(*Scope) *T) Slot[T] {
	n := int(slotCount.Add(1)) - 1
	if n >= maxSlots {
		panic(fmt.Sprintf("scope: NewSlot: %d slots declared, at most %d are possible", n+1, maxSlots))
	}
	return Slot[T]{index: n, make: mk}
}

// Get returns the value of s, making it at the first call. Concurrent first
// calls agree on one value. It does not block.
func (k Slot[T]) Get(s *Scope) *T {
	place := &s.slots[k.index]
	if p := place.Load(); p != nil {
		return (*p).(*T)
	}
	var v any = k.make(s)
	if place.CompareAndSwap(nil, &v) {
		return v.(*T)
	}
	return (*place.Load()).(*T)
}

// Peek returns the value of s, or nil when nobody asked for it yet.
func (k Slot[T]) Peek(s *Scope) *T {
	if p := s.slots[k.index].Load(); p != nil {
		return (*p).(*T)
	}
	return nil
}

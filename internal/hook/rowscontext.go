package hook

import (
	"context"
	"sync"
	"sync/atomic"
)

// rowsContext tells when the *sql.Rows made under it are closed. database/sql
// gives Rows a child of the query's context and cancels it in Close; a parent
// with a method AfterFunc (see context.AfterFunc) learns of it, because the
// context package then calls the stop that AfterFunc returned. So the time of
// a caller's own loop is known, and no row passes through our hands.
type rowsContext struct {
	context.Context
	done    chan struct{}
	release func() bool
	state   atomic.Int32
	closed  func()
}

const (
	rowsRunning int32 = iota // the terminal callback is running
	rowsHanded               // it has ended, the rows are the caller's
	rowsClosed
)

// never makes database/sql watch a context that cannot end.
var never = make(chan struct{})

// newRowsContext calls closed once, when the Rows are closed after handOver.
func newRowsContext(ctx context.Context, closed func()) *rowsContext {
	c := &rowsContext{Context: ctx, closed: closed, done: never, release: func() bool { return true }}
	if ctx.Done() != nil {
		// A channel of its own: with its parent's the context package would
		// hang children on the parent, past us.
		c.done = make(chan struct{})
		c.release = context.AfterFunc(ctx, func() { close(c.done) })
	}
	return c
}

// Done implements context.Context; it is never nil.
func (c *rowsContext) Done() <-chan struct{} { return c.done }

// AfterFunc is what the context package looks for when it makes a child.
func (c *rowsContext) AfterFunc(f func()) (stop func() bool) {
	tell := sync.OnceFunc(c.childGone)
	if c.Context.Done() == nil {
		return func() bool { tell(); return true }
	}
	parentStop := context.AfterFunc(c.Context, func() { f(); tell() })
	return func() bool {
		stopped := parentStop()
		tell()
		return stopped
	}
}

// childGone is called when a child has been cancelled. Children that the driver
// makes for the time of a call are gone before the hand-over.
func (c *rowsContext) childGone() {
	if c.state.CompareAndSwap(rowsHanded, rowsClosed) {
		c.release()
		c.closed()
	}
}

// handOver is called when the terminal callback ends: from now on the Rows are
// the caller's, and their Close ends the record. It reports false when the
// context has ended and the Rows close by themselves.
func (c *rowsContext) handOver() bool {
	if c.Err() != nil {
		c.release()
		return false
	}
	return c.state.CompareAndSwap(rowsRunning, rowsHanded)
}

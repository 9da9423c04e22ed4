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
	release func() bool     // takes back the watch of Context
	closed  func(err error) // err is that of a context which ended first

	mu       sync.Mutex // guards the rest
	children int        // contexts below that have not ended
	handed   bool       // the terminal callback has ended, the rows are the caller's
	over     bool       // nobody waits for them
}

// newRowsContext calls closed once, when the Rows are closed after handOver.
func newRowsContext(ctx context.Context, closed func(error)) *rowsContext {
	// A channel of its own: with its parent's the context package would hang
	// children on the parent, past us, and without one database/sql makes none.
	c := &rowsContext{Context: ctx, closed: closed, done: make(chan struct{})}
	if ctx.Done() != nil {
		c.release = context.AfterFunc(ctx, func() { close(c.done) })
	}
	return c
}

// Done implements context.Context; it is never nil.
func (c *rowsContext) Done() <-chan struct{} { return c.done }

// AfterFunc is what the context package looks for when it makes a child.
func (c *rowsContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	c.children++
	c.mu.Unlock()
	child := &rowsChild{of: c}
	if c.Context.Done() != nil {
		child.stopParent = context.AfterFunc(c.Context, func() {
			f()
			child.leave()
		})
	}
	return child.stop
}

type rowsChild struct {
	of         *rowsContext
	left       atomic.Bool
	stopParent func() bool
}

func (k *rowsChild) stop() bool {
	stopped := k.stopParent == nil || k.stopParent()
	k.leave()
	return stopped
}

func (k *rowsChild) leave() {
	if !k.left.CompareAndSwap(false, true) {
		return
	}
	c := k.of
	c.mu.Lock()
	c.children--
	tell := c.handed && !c.over && c.children == 0
	c.over = c.over || tell
	c.mu.Unlock()
	if tell {
		c.let()
		c.closed(c.Err()) // when the context has ended, database/sql has closed them
	}
}

// handOver is called when the terminal callback ends: from now on the Rows are
// the caller's, and their Close ends the record. It reports false when there is
// nothing to wait for: the Rows are closed, or never were, or hang below a
// context of somebody else's, or close by themselves with a context that has
// ended.
func (c *rowsContext) handOver() bool {
	c.mu.Lock()
	c.handed = !c.over && c.children > 0 && c.Err() == nil
	c.over = !c.handed
	handed := c.handed
	c.mu.Unlock()
	if !handed {
		c.let()
	}
	return handed
}

// drop ends the waiting.
func (c *rowsContext) drop() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.let()
}

func (c *rowsContext) let() {
	if c.release != nil {
		c.release()
	}
}

package cachehook

import (
	"context"
	"sync"
)

// batches lets many who ask Redis the same thing at once ask it together. An
// answer is as old as its question, so nobody joins one that is under way: who
// comes meanwhile shares the next one, which starts after they came.
type batches struct {
	mu   sync.Mutex        // guards busy
	busy map[string]*batch // by question under way: the next one, or nil
}

// batch is the question that waits for the one under way.
type batch struct {
	run      func() standing
	done     chan struct{}
	standing standing // may be read after done
}

// ask returns what run does, or what another's run does that starts after the
// call. ok is false when ctx ends first. run may be called on another goroutine,
// after the caller has left.
func (g *batches) ask(ctx context.Context, name string, run func() standing) (s standing, ok bool) {
	g.mu.Lock()
	if g.busy == nil {
		g.busy = make(map[string]*batch)
	}
	next, underWay := g.busy[name]
	if !underWay {
		g.busy[name] = nil
		g.mu.Unlock()
		defer g.after(name)
		return run(), true
	}
	if next == nil {
		next = &batch{run: run, done: make(chan struct{})}
		g.busy[name] = next
	}
	g.mu.Unlock()
	select {
	case <-next.done:
		return next.standing, true
	case <-ctx.Done():
		return standing{}, false
	}
}

// after starts the question that has waited, if there is one.
func (g *batches) after(name string) {
	g.mu.Lock()
	next := g.busy[name]
	if next == nil {
		delete(g.busy, name)
		g.mu.Unlock()
		return
	}
	g.busy[name] = nil
	g.mu.Unlock()
	go func() {
		defer g.after(name)
		defer close(next.done)
		next.standing = next.run()
	}()
}

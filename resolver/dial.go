package resolver

import (
	"context"
	"database/sql/driver"
	"math/rand/v2"
	"sync"
	"time"
)

// How a node that comes back is spared a storm of new connections.
const (
	maxDials     = 4 // under way at once
	firstBackoff = 10 * time.Millisecond
	maxBackoff   = time.Second
)

// gentle opens the connections of a pool: at most [maxDials] at once, and after
// one that failed the next only after a pause, which doubles with each failure in
// a row. All is bounded by the context of whoever waits.
type gentle struct {
	driver.Connector
	slots chan struct{}

	mu      sync.Mutex // guards the rest
	failed  int        // in a row
	pausing time.Time  // no dial before
}

func newGentle(c driver.Connector) *gentle {
	return &gentle{Connector: c, slots: make(chan struct{}, maxDials)}
}

// Connect implements driver.Connector.
func (g *gentle) Connect(ctx context.Context) (driver.Conn, error) {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := g.rest(ctx); err != nil {
		return nil, err
	}
	conn, err := g.Connector.Connect(ctx)
	g.note(err != nil && ctx.Err() == nil, time.Now())
	return conn, err
}

// rest waits for the end of the pause.
func (g *gentle) rest(ctx context.Context) error {
	g.mu.Lock()
	d := time.Until(g.pausing)
	g.mu.Unlock()
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note remembers how a dial ended.
func (g *gentle) note(failed bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !failed {
		g.failed, g.pausing = 0, time.Time{}
		return
	}
	d := min(firstBackoff<<min(g.failed, 16), maxBackoff)
	g.failed++
	g.pausing = now.Add(d/2 + rand.N(d/2+1))
}

// forgive ends the pause: the node was seen to answer.
func (g *gentle) forgive() {
	if g != nil {
		g.note(false, time.Time{})
	}
}

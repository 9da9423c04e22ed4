package cachehook

import (
	"context"
	"sync"
	"time"
)

// positioner is the router's ability to tell WAL positions; see internal/hook.
type positioner interface {
	PositionAfter(ctx context.Context, t time.Time) (lsn uint64, err error)
}

// positions finds for each stamp a WAL position at or above every commit that
// the stamp stands for: any position that was read after this process first saw
// the stamp will do. Until it is known fills come from the primary.
type positions struct {
	find func() positioner // nil result: there is none

	mu      sync.Mutex // guards the rest
	waiting map[*cell]stamp
	running bool
	stopped bool
	done    sync.WaitGroup
}

// floor returns the position that a replica must have replayed for a fill under
// these stamps. known is false while it cannot be told; it is asked for then.
func (p *positions) floor(cells []*cell, stamps []stamp) (lsn uint64, known bool) {
	router := p.find()
	if router == nil {
		return 0, false
	}
	known = true
	for i, c := range cells {
		r := c.replayed.Load()
		if r == nil || r.stamp != stamps[i] {
			p.want(router, c, stamps[i])
			known = false
			continue
		}
		lsn = max(lsn, r.lsn)
	}
	return lsn, known
}

func (p *positions) want(router positioner, c *cell, s stamp) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	if p.waiting == nil {
		p.waiting = make(map[*cell]stamp)
	}
	p.waiting[c] = s
	if !p.running {
		p.running = true
		p.done.Go(func() { p.sample(router) })
	}
}

// sample lets one position stand for all stamps that wait for one, as often as
// new ones have come meanwhile.
func (p *positions) sample(router positioner) {
	for {
		p.mu.Lock()
		batch := p.waiting
		p.waiting = nil
		if len(batch) == 0 || p.stopped {
			p.running = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		lsn, err := router.PositionAfter(ctx, time.Now())
		cancel()
		if err != nil || lsn == 0 {
			continue // whoever fills next asks again
		}
		for c, s := range batch {
			c.replayed.Store(&replayed{s, lsn})
		}
	}
}

// stop waits for the sample under way, a second at most.
func (p *positions) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.done.Wait()
}

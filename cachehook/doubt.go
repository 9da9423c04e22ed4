package cachehook

import (
	"context"
	"sync"
	"time"
)

// doubts holds the tags that a transaction may still change whose end nobody
// tells: one that a program began by hand on a connection of db.Connection, or a
// *sql.Tx of its own. A write in it bumps its tags at once, but what is read
// before its COMMIT is from before the write, and a fill of it would stay. So
// nothing is served or filled under the tags for a time from their last such
// write: here, and by a mark in other processes too. A transaction that goes on
// for longer can leave a result from before its COMMIT, for at most its TTL.
type doubts struct {
	mu      sync.Mutex // guards the rest, and Add of running against Wait
	held    map[string]doubt
	waiting bool // a goroutine waits for the next to end
	stopped bool
	running sync.WaitGroup
}

type doubt struct {
	cell  *cell
	until int64 // on the cache's clock
}

// doubtTags holds the tags until markTTL from now.
func (c *Cache) doubtTags(tags []string) {
	if c.store != nil {
		_ = c.store.mark(context.Background(), tags, c.salt) // counted by the guard
	}
	d := &c.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return
	}
	if d.held == nil {
		d.held = make(map[string]doubt)
	}
	until := c.now() + int64(c.markTTL)
	for _, tag := range tags {
		held, ok := d.held[tag]
		if !ok {
			held.cell = c.hold([]string{tag})[0]
		}
		held.until = until
		d.held[tag] = held
	}
	if !d.waiting {
		d.waiting = true
		d.running.Go(c.watchDoubts)
	}
}

// watchDoubts lets go of what nobody has written for long enough: with a new
// stamp, as the transaction has probably ended. It goes when nothing is left.
func (c *Cache) watchDoubts() {
	wait := c.markTTL
	for wait > 0 {
		select {
		case <-c.life.Done():
			return
		case <-time.After(wait):
		}
		var tags []string
		var cells []*cell
		tags, cells, wait = c.doubts.take(c.now())
		if len(tags) > 0 {
			// No writer: the mark has run out, or stands for a later write.
			_ = c.bump(tags, "", cells)
		}
	}
}

// take removes and returns what has ended by now, and how long the next will
// take; zero when there is none, and then nobody waits any more.
func (d *doubts) take(now int64) (tags []string, cells []*cell, next time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for tag, held := range d.held {
		left := time.Duration(held.until - now)
		if left > 0 {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		tags, cells = append(tags, tag), append(cells, held.cell)
		delete(d.held, tag)
	}
	d.waiting = next > 0
	return tags, cells, next
}

func (d *doubts) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

// stop waits for what is under way; the cache's life has ended.
func (d *doubts) stop() {
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	d.running.Wait()
}

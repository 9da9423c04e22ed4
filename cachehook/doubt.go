package cachehook

import (
	"context"
	"slices"
	"sync"
	"time"
)

// doubts holds the tags that a transaction may still change whose end nobody
// tells: one that a program began by hand on a connection of db.Connection, or a
// *sql.Tx of its own. A write in it bumps its tags at once, but what is read
// before its COMMIT is from before the write, and a fill of it would stay. So
// nothing is served or filled under the tags for a time from their last such
// write: here, and by a mark in other processes too. A *sql.Tx is waited for until it is
// over, and so is for a minute a BEGIN by hand on a connection of db.Connection,
// until its COMMIT or ROLLBACK by hand. Of others the end is not known: one that
// goes on for longer can leave a result from before its COMMIT, for at most its
// TTL; so can a COMMIT that takes more than a second itself.
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
	// open are the transactions of which it can be told whether they are over.
	open []func() bool
}

// doubtTags holds the tags until markTTL from now, and as long as the
// transaction is not over.
func (c *Cache) doubtTags(tags []string, over func() bool) {
	if c.store != nil {
		_, _ = c.store.mark(context.Background(), tags, c.salt, false) // counted by the guard
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
		if over != nil {
			held.open = append(slices.DeleteFunc(held.open, func(over func() bool) bool { return over() }), over)
		}
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
		var open []string
		tags, cells, open, wait = c.doubts.take(c.now(), c.markTTL/5)
		if len(open) > 0 && c.store != nil {
			_, _ = c.store.mark(context.Background(), open, c.salt, false) // the last one ends soon
		}
		if len(tags) > 0 {
			// No writer: the mark has run out, or stands for a later write.
			_ = c.bump(tags, "", cells, nil)
		}
	}
}

// take removes and returns what has ended by now, what is held longer because
// its transaction is open, and how long the next will take; zero when there is
// none, and then nobody waits any more. A transaction that has ended is given
// settle for its COMMIT.
func (d *doubts) take(now int64, settle time.Duration) (tags []string, cells []*cell, open []string, next time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for tag, held := range d.held {
		left := time.Duration(held.until - now)
		if left <= 0 && len(held.open) > 0 {
			held.open = slices.DeleteFunc(held.open, func(over func() bool) bool { return over() })
			held.until, left = now+int64(settle), settle
			d.held[tag] = held
			open = append(open, tag)
		}
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
	return tags, cells, open, next
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

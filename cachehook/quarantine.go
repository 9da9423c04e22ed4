package cachehook

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// quarantine holds the tags that Redis has not been told of.
type quarantine struct {
	mu    sync.Mutex // guards the rest
	held  map[string][]*cell
	by    *catalog      // from which they come, the earliest; nil: from none
	added chan struct{} // made by the first; has one slot
}

func (q *quarantine) add(tags []string, cells []*cell, by *catalog) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.by == nil || by != nil && by.loaded < q.by.loaded {
		q.by = by
	}
	if q.held == nil {
		q.held = make(map[string][]*cell)
	}
	for i, tag := range tags {
		q.held[tag] = append(q.held[tag], cells[i])
	}
	select {
	case q.signalLocked() <- struct{}{}:
	default:
	}
}

func (q *quarantine) signalLocked() chan struct{} {
	if q.added == nil {
		q.added = make(chan struct{}, 1)
	}
	return q.added
}

func (q *quarantine) signal() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.signalLocked()
}

// take removes and returns what is held. Where it comes from several catalogues it
// is by the earliest, which is not the present schema's if one of them is not.
func (q *quarantine) take() (tags []string, cells []*cell, by *catalog) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for tag, held := range q.held {
		for _, cell := range held {
			tags, cells = append(tags, tag), append(cells, cell)
		}
	}
	by, q.by, q.held = q.by, nil, nil
	return tags, cells, by
}

func (q *quarantine) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.held)
}

const retryPause = 100 * time.Millisecond

// retryLoop tells Redis what it could not be told, until ctx ends.
func (c *Cache) retryLoop(ctx context.Context) {
	added := c.pending.signal()
	for {
		select {
		case <-ctx.Done():
			return
		case <-added:
		}
		if c.pending.len() == 0 { // a signal of what has been told since
			continue
		}
		began := time.Now()
		var every []*cell // held while the tags may not be all that was written: see bump
		for first := true; ctx.Err() == nil && c.pending.len() > 0; first = false {
			tags, cells, by := c.pending.take()
			if first {
				c.cfg.Logger.Warn("cachehook: Redis was not told of a write: until it is, this instance serves nothing of its tables, and others may serve what is as old as its TTL", "of", namesOf(tags))
			}
			if by != nil && every == nil {
				every = c.hold(allTags)
			}
			told := compactTags(tags)
			saw, err := c.store.bump(context.Background(), told, "", looks(by, told))
			if err == nil && by != nil && saw.changed(by.schema) {
				c.outdated(by)
				_, err = c.store.bump(context.Background(), allTags, "", false)
			}
			if err == nil {
				c.release(cells, true)
				continue
			}
			c.pending.add(tags, cells, by)
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
		}
		c.release(every, true)
		if ctx.Err() == nil {
			c.cfg.Logger.Info("cachehook: Redis has been told of all writes", "after", time.Since(began))
		}
	}
}

const maxNames = 10

// namesOf writes tags for the log: each table and tag once, the first few of them.
func namesOf(tags []string) string {
	var names []string
	for _, tag := range tags {
		if tag != schemaTag {
			names = append(names, nameOf(tableOf(tag)))
		}
	}
	names = compactTags(names)
	if n := len(names) - maxNames; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], " "), n)
	}
	return strings.Join(names, " ")
}

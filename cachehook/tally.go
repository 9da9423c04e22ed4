package cachehook

import (
	"strings"
	"sync"
	"sync/atomic"
)

// missReason says what a look-up lacked that had to read the database.
type missReason uint8

const (
	missCold        missReason = iota // nothing was kept, or not any more
	missExpired                       // its TTL had ended
	missInvalidated                   // a tag has been invalidated since
	missCorrupt                       // Redis held what cannot be read
	missForm                          // kept for another type of destination
	missReasons
)

var missNames = [missReasons]string{"cold", "expired", "invalidated", "corrupt", "form"}

// fillReason says why a result was not kept.
type fillReason uint8

const (
	fillSize      fillReason = iota // above MaxResult
	fillNotFound                    // no rows, and a negative NotFoundTTL
	fillOvertaken                   // a tag was invalidated while it was read
	fillSession                     // a session's settings changed while it was read
	fillType                        // not kept in Redis: a column's type has no form there
	fillRedis                       // not kept in Redis, which failed or was slow
	fillReasons
)

var fillNames = [fillReasons]string{"size", "not_found", "overtaken", "session", "type", "redis"}

// tally counts what concerns one table. What depends on several counts under the
// first of them by name.
type tally struct {
	l1, l2, shared, stale, refreshes, fills, invalidations atomic.Uint64

	misses  [missReasons]atomic.Uint64
	refused [fillReasons]atomic.Uint64

	entries, bytes atomic.Int64 // in memory
}

func (t *tally) hit(at level) {
	if at == inRedis {
		t.l2.Add(1)
		return
	}
	t.l1.Add(1)
}

// maxTallies bounds the tables that are counted apart: each is a label's value.
const maxTallies = 200

// tallies are those of the tables that the catalogue knows and statements have
// read through the cache. The zero value is ready.
type tallies struct {
	rest tally // what reads no table, is kept by hand, or is beyond maxTallies

	mu     sync.Mutex // guards tables
	tables map[string]*tally
}

// of returns the tally of the table whose tag the cell is; those of one name share
// one.
func (t *tallies) of(c *cell) *tally {
	if known := c.tally.Load(); known != nil {
		return known
	}
	name, table := strings.CutPrefix(tableOf(c.tag), tablePrefix)
	if _, bare, schema := strings.Cut(name, "."); schema {
		name = bare // a schema for each tenant would make too many
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.tables[name]
	switch {
	case !c.pinned:
		return &t.rest
	case own != nil:
	case !table || len(t.tables) >= maxTallies:
		return &t.rest
	default:
		if t.tables == nil {
			t.tables = make(map[string]*tally)
		}
		own = &tally{}
		t.tables[name] = own
	}
	c.tally.Store(own)
	return own
}

// each visits all tallies; the rest has no name.
func (t *tallies) each(visit func(name string, t *tally)) {
	visit("", &t.rest)
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, own := range t.tables {
		visit(name, own)
	}
}

// first returns the tally of what depends on the cells.
func (t *tallies) first(cells []*cell) *tally {
	for _, c := range cells {
		if own := t.of(c); own != &t.rest {
			return own
		}
	}
	return &t.rest
}

// weigh notes that an entry has come into memory, or has left it. Its tally has
// been found before.
func (t *tallies) weigh(e *entry, entries, bytes int64) {
	own := &t.rest
	for i := range e.dependsOn() {
		if known := e.dep(i).cell.tally.Load(); known != nil {
			own = known
			break
		}
	}
	own.entries.Add(entries)
	own.bytes.Add(bytes)
}

// invalidated notes new stamps.
func (t *tallies) invalidated(cells []*cell) {
	for _, c := range cells {
		if own := c.tally.Load(); own != nil && c.listed { // not the whole besides
			own.invalidations.Add(1)
		}
	}
}

// kept returns how many results were stored or found so far.
func (t *tallies) kept() (n uint64) {
	t.each(func(_ string, t *tally) { n += t.fills.Load() + t.l1.Load() + t.l2.Load() + t.shared.Load() })
	return n
}

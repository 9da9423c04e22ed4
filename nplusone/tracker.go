package nplusone

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

// The bounds of one scope's memory, which together stay below 1 MB. A statement
// of a known shape and place is always counted; one that finds no room is
// counted as dropped.
const (
	maxGroups    = 1 << 10
	maxTextBytes = 512 << 10 // of statements that groups hold on to
	maxSeen      = 12_000    // parameter tuples told apart
	maxSamples   = 64 << 10  // bytes of parameter samples
	maxReasons   = 8         // reasons of Ignore told apart
	maxWritten   = 64        // tables written; with more, every write counts for all
)

// event is one finished statement, as the tracker needs it.
type event struct {
	text    *sqltext.Statement
	sql     string
	args    []any
	opaque  bool  // args may be the caller's again: pointers are not followed
	site    *site // nil: not known
	model   any   // handle of the model for the catalogue, nil without one
	start   time.Duration
	took    time.Duration
	rows    int64 // -1: not known
	txn     uint64
	parent  uint64 // key of the group whose preload it is
	preload bool
	cached  bool // answered from memory
	failed  bool
	bulk    bool // an insert of several rows
	samples bool
}

// key is the group that the event belongs to.
func (e *event) key() uint64 { return groupKey(e.text.Fingerprint, e.site, e.preload) }

func groupKey(fingerprint uint64, at *site, preload bool) uint64 {
	h := mix(1, fingerprint)
	if at != nil {
		h = mix(h, at.hash)
	}
	if preload { // a preload of one parent has the shape of the loop's query
		h = mix(h, 2)
	}
	return h
}

// group counts the statements of one shape from one place.
type group struct {
	key    uint64
	parent uint64
	text   *sqltext.Statement
	site   *site
	model  *model

	first   time.Duration // start of the first one, from the scope's start
	total   time.Duration
	rows    int64
	maxRows int64
	txn     uint64
	keys    uint64 // hash of what the first one's equalities compared with

	all      uint32 // the cached, repeated and bulk ones included
	count    uint32 // sent, without the failed, the bulk ones and those repeated by a retry
	distinct uint32 // parameter tuples
	repeats  uint32 // with parameters that an earlier one had, and no reason to ask again
	args     uint32
	written  uint32 // the scope's writes at the last one

	preload  bool
	keysVary bool
	samples  []params
}

// tracker is the state of one Detector in one scope.
type tracker struct {
	detector *Detector
	scope    *scope.Scope
	next     *tracker
	detail   bool // places and samples, whatever the Config says
	finished atomic.Bool

	mu         sync.Mutex        // guards the rest
	index      map[uint64]uint16 // nil: there are few groups
	groups     []group
	seen       hashSet
	statements int
	cached     int
	failed     int
	dropped    int
	time       time.Duration
	textBytes  int
	sampled    int // bytes
	ignored    []Ignored
	writes     uint32
	wroteAll   uint32
	wrote      []tableWrite
}

// tableWrite is the number of the last write of one table.
type tableWrite struct {
	table uint64 // hash of the name
	n     uint32
}

// note adds a statement.
func (t *tracker) note(e *event) {
	key := e.key()
	var args, keys uint64
	counts := !e.cached && !e.failed && !e.bulk
	if counts {
		args, keys = hashArgs(e)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	t.statements++
	if e.cached {
		t.cached++
	} else {
		t.time += e.took
	}
	if e.text.MayWrite() {
		t.noteWrite(e.text) // a failed one, too: it may have happened
	}
	if e.failed {
		t.failed++
		return
	}
	g := t.group(key, e)
	if g == nil {
		return
	}
	g.all++
	if e.rows > 0 {
		g.rows += e.rows
		g.maxRows = max(g.maxRows, e.rows)
	} else if e.rows < 0 {
		g.maxRows = max(g.maxRows, unknownRows)
	}
	if !counts {
		return
	}
	fresh, room := t.seen.add(mix(key, args))
	switch {
	case fresh:
		g.distinct++
	case !room:
	case e.txn != g.txn:
		return // another snapshot, or a transaction that is tried again
	case !e.text.Locking && !e.text.Volatile && !e.text.Unstable && !t.writtenSince(e.text, g.written):
		g.repeats++
	}
	if g.count == 0 {
		g.keys = keys
	} else if g.keys != keys {
		g.keysVary = true
	}
	g.txn, g.written = e.txn, t.writes
	g.count++
	g.args += uint32(len(e.args))
	g.total += e.took
	// Most statements run once; rendering waits for the second.
	if e.samples && fresh && g.count > 1 && len(g.samples) < 3 && t.sampled < maxSamples {
		s := sample(e)
		t.sampled += s.size()
		g.samples = append(g.samples, s)
	}
}

// unknownRows stands for the rows of a caller's own loop over Rows, which are
// not counted: it may have been many.
const unknownRows = 1 << 40

// group finds or makes the group of key, nil when there is no room.
func (t *tracker) group(key uint64, e *event) *group {
	if g := t.known(key); g != nil {
		g.first = min(g.first, e.start)
		return g
	}
	cost := 2*len(e.sql) + 512
	if len(t.groups) >= maxGroups || t.textBytes+cost > maxTextBytes {
		t.dropped++
		t.detector.stats.dropped.Add(1)
		return nil
	}
	switch {
	case t.index != nil:
		t.index[key] = uint16(len(t.groups))
	case t.groups == nil:
		t.groups = make([]group, 0, 2)
	case len(t.groups) == fewGroups:
		t.index = make(map[uint64]uint16, 4*fewGroups)
		for i := range t.groups {
			t.index[t.groups[i].key] = uint16(i)
		}
		t.index[key] = fewGroups
	}
	t.textBytes += cost
	t.groups = append(t.groups, group{
		key: key, text: e.text, site: e.site, model: t.detector.catalog.model(e.model),
		first: e.start, preload: e.preload, parent: e.parent,
	})
	return &t.groups[len(t.groups)-1]
}

// fewGroups are found by looking at each: most scopes have no more.
const fewGroups = 8

// known finds the group of key, nil when there is none yet.
func (t *tracker) known(key uint64) *group {
	if t.index != nil {
		if i, ok := t.index[key]; ok {
			return &t.groups[i]
		}
		return nil
	}
	for i := range t.groups {
		if t.groups[i].key == key {
			return &t.groups[i]
		}
	}
	return nil
}

func (t *tracker) noteWrite(text *sqltext.Statement) {
	t.writes++
	if text.Opaque || len(text.Writes) == 0 {
		t.wroteAll = t.writes
		return
	}
	for i := range text.Writes {
		w := t.lastWrite(text.Writes[i].Name)
		switch {
		case w != nil:
			w.n = t.writes
		case len(t.wrote) < maxWritten:
			t.wrote = append(t.wrote, tableWrite{hashString(1, text.Writes[i].Name), t.writes})
		default:
			t.wroteAll = t.writes
		}
	}
}

func (t *tracker) lastWrite(table string) *tableWrite {
	h := hashString(1, table)
	for i := range t.wrote {
		if t.wrote[i].table == h {
			return &t.wrote[i]
		}
	}
	return nil
}

// writtenSince reports whether a table that text reads may have been written
// after the scope's write number n.
func (t *tracker) writtenSince(text *sqltext.Statement, n uint32) bool {
	if t.writes == n {
		return false
	}
	if t.wroteAll > n {
		return true
	}
	for i := range text.Reads {
		if w := t.lastWrite(text.Reads[i].Name); w != nil && w.n > n {
			return true
		}
	}
	return false
}

func (t *tracker) noteIgnored(reason string, text *sqltext.Statement, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.statements++
	t.time += took
	if text.MayWrite() {
		t.noteWrite(text)
	}
	for i := range t.ignored {
		if t.ignored[i].Reason == reason || i == maxReasons-1 {
			t.ignored[i].Statements++
			return
		}
	}
	t.ignored = append(t.ignored, Ignored{Reason: reason, Statements: 1})
}

func (t *tracker) findings(threshold int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i := range t.groups {
		if t.groups[i].kind(threshold) != "" {
			n++
		}
	}
	return n
}

func (t *tracker) seenStatements() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.statements
}

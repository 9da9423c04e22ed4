package cachehook

import (
	"math"
	"strings"
	"time"
)

// dep is a tag that an entry depends on, with the stamp that it had before the
// entry's value was read from the database.
type dep struct {
	cell  *cell
	stamp stamp
}

// entry is one cached value. It is immutable but for its place in memory.
type entry struct {
	value   any   // *rowset, *snapshot, unstorable, or what a caller put by hand; see hand.go
	deps    []dep // in the order of the lookup's cells
	expires int64 // on the cache's monotonic clock, nanoseconds
	read    int64 // by when it had been read from a database, as far as this process knows; see shownAt
	bytes   uint32
	cost    uint32 // what reading it took, microseconds; 0: not known

	// Of memory, guarded by the shard's mutex.
	key          string
	newer, older *entry
}

// What an entry holds besides its value, measured: the struct, its slot in the
// map, and what the allocator rounds up.
const (
	entryOverhead = 96 + 64
	depBytes      = 24
	// rowBytes is what the tag of a row holds, which few entries have in common.
	rowBytes = 128
)

// rounded is a size as the allocator rounds it, on the average.
func rounded(n int) int { return n + n/16 }

func newEntry(value any, size int, cells []*cell, stamps []stamp, expires int64) *entry {
	e := &entry{value: value, deps: make([]dep, len(cells)), expires: expires, read: int64(time.Since(started))}
	for i, c := range cells {
		e.deps[i] = dep{c, stamps[i]}
		if !c.pinned && strings.Contains(c.tag, rowMark) {
			size += rowBytes
		}
	}
	e.bytes = bytesOf(entryOverhead + size + depBytes*len(cells))
	return e
}

// bytesOf is a size that an entry can hold; a larger one is more than any bound.
func bytesOf(n int) uint32 { return uint32(min(uint64(n), math.MaxUint32)) }

// costOf is a time in nanoseconds as an entry holds it.
func costOf(ns int64) uint32 { return uint32(min(max(ns/1000, 0), math.MaxUint32)) }

// started is when the process began, for times that are short to keep.
var started = time.Now()

// shownAt is by when the value had been read from a database.
func (e *entry) shownAt() time.Time { return started.Add(time.Duration(e.read)) }

// with returns an entry that differs in its value alone, which is more bytes
// larger.
func (e *entry) with(value any, more int) *entry {
	return &entry{value: value, deps: e.deps, expires: e.expires, read: e.read, cost: e.cost, bytes: bytesOf(int(e.bytes) + more)}
}

// stamps returns those that the entry was made under.
func (e *entry) stamps() []stamp {
	s := make([]stamp, len(e.deps))
	for i := range e.deps {
		s[i] = e.deps[i].stamp
	}
	return s
}

// current reports whether the mirror knows every tag's stamp, and all are the
// entry's. It allocates nothing.
func (e *entry) current(m *mirror) bool {
	for i := range e.deps {
		d := &e.deps[i]
		if s, known := m.present(d.cell); !known || s != d.stamp || d.cell.busy.Load() != 0 {
			return false
		}
	}
	return true
}

// overtaken reports whether the mirror knows a tag to have another stamp.
func (e *entry) overtaken(m *mirror) bool {
	for i := range e.deps {
		if s, known := m.present(e.deps[i].cell); known && s != e.deps[i].stamp {
			return true
		}
	}
	return false
}

// carries reports whether the entry was made under these stamps, or the first of
// them if it depends on less.
func (e *entry) carries(stamps []stamp) bool {
	if len(e.deps) > len(stamps) {
		return false
	}
	for i := range e.deps {
		if e.deps[i].stamp != stamps[i] {
			return false
		}
	}
	return true
}

// clock is monotonic time in nanoseconds since the cache was made.
type clock func() int64

func newClock() clock {
	start := time.Now()
	return func() int64 { return int64(time.Since(start)) }
}

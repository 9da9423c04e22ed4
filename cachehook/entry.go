package cachehook

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// dep is a tag that an entry depends on, with the stamp that it had before the
// entry's value was read from the database.
type dep struct {
	cell *cell
	// under holds the stamp. Most often the cell has the same one, so that it takes no
	// memory of its own, and no look at it to tell that nothing has changed.
	under *tagState
}

// deps are what entries depend on that were read under the same stamps: as a rule
// all of a table's that were read between two writes. See [memory.sharedDeps].
type deps struct{ list []dep }

// entry is one cached value. It is immutable but for its place in memory.
type entry struct {
	value any // *rowset, *snapshot, unstorable, or what a caller put by hand; see hand.go
	// What it depends on, in the order of the lookup's cells: the last one, which is
	// the row where one is read by its key, and those before it.
	before  *deps
	last    dep         // without a cell: there is none at all
	expires int64       // on the cache's monotonic clock, nanoseconds
	read    hook.Moment // by when it had been read from a database, as far as this process knows; see shownAt
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
	// rowBytes is what the tag of a row holds, which few entries have in common.
	rowBytes = 160
)

// rounded is a size as the allocator rounds it, on the average.
func rounded(n int) int { return n + n/16 }

// newEntry makes an entry that memory may hold.
func (m *memory) newEntry(value any, size int, cells []*cell, stamps []stamp, expires int64) *entry {
	e := &entry{value: value, before: noDeps, expires: expires, read: hook.Now()}
	if n := len(cells); n > 0 {
		e.before, e.last = m.sharedDeps(cells[:n-1], stamps), depOn(cells[n-1], stamps[n-1])
	}
	for _, c := range cells {
		if !c.pinned && strings.Contains(c.tag, rowMark) {
			size += rowBytes
		}
	}
	e.bytes = bytesOf(entryOverhead + size)
	return e
}

func depOn(c *cell, s stamp) dep {
	if now := c.state.Load(); now.stamp == s {
		return dep{c, now}
	}
	return dep{c, &tagState{stamp: s}}
}

var noDeps = &deps{}

// sharedDeps returns what entries have in common that depend on these cells under
// these stamps. Of two that have one place the last is remembered.
func (m *memory) sharedDeps(cells []*cell, stamps []stamp) *deps {
	if len(cells) == 0 {
		return noDeps
	}
	h := uint64(len(cells))
	for i := range cells {
		h = (h ^ binary.LittleEndian.Uint64(stamps[i][:])) * 1099511628211 // FNV's prime; stamps are random
	}
	slot := &m.shared[h>>32%uint64(len(m.shared))]
	if d := slot.Load(); d != nil && d.are(cells, stamps) {
		return d
	}
	d := &deps{make([]dep, len(cells))}
	for i, c := range cells {
		d.list[i] = depOn(c, stamps[i])
	}
	slot.Store(d)
	return d
}

func (d *deps) are(cells []*cell, stamps []stamp) bool {
	if len(d.list) != len(cells) {
		return false
	}
	for i := range d.list {
		if d.list[i].cell != cells[i] || d.list[i].under.stamp != stamps[i] {
			return false
		}
	}
	return true
}

// bytesOf is a size that an entry can hold; a larger one is more than any bound.
func bytesOf(n int) uint32 { return uint32(min(uint64(n), math.MaxUint32)) }

// costOf is a time in nanoseconds as an entry holds it.
func costOf(ns int64) uint32 { return uint32(min(max(ns/1000, 0), math.MaxUint32)) }

// shownAt is by when the value had been read from a database.
func (e *entry) shownAt() hook.Moment { return e.read }

// with returns an entry that differs in its value alone, which is more bytes
// larger.
func (e *entry) with(value any, more int) *entry {
	return &entry{
		value: value, before: e.before, last: e.last, expires: e.expires, read: e.read, cost: e.cost,
		bytes: bytesOf(int(e.bytes) + more),
	}
}

// dependsOn returns how many tags the entry depends on.
func (e *entry) dependsOn() int {
	if e.last.cell == nil {
		return 0
	}
	return len(e.before.list) + 1
}

// dep returns one of them.
func (e *entry) dep(i int) *dep {
	if i < len(e.before.list) {
		return &e.before.list[i]
	}
	return &e.last
}

// stamps returns those that the entry was made under.
func (e *entry) stamps() []stamp {
	s := make([]stamp, e.dependsOn())
	for i := range s {
		s[i] = e.dep(i).under.stamp
	}
	return s
}

// current reports whether the mirror knows every tag's stamp, and all are the
// entry's. It allocates nothing.
func (e *entry) current(m *mirror) bool {
	for i := range e.dependsOn() {
		d := e.dep(i)
		if s, known := m.known(d.cell); !known || s != d.under && s.stamp != d.under.stamp || d.cell.busy.Load() != 0 {
			return false
		}
	}
	return true
}

// overtaken reports whether the mirror knows a tag to have another stamp.
func (e *entry) overtaken(m *mirror) bool {
	for i := range e.dependsOn() {
		if s, known := m.present(e.dep(i).cell); known && s != e.dep(i).under.stamp {
			return true
		}
	}
	return false
}

// carries reports whether the entry was made under these stamps, or the first of
// them if it depends on less.
func (e *entry) carries(stamps []stamp) bool {
	n := e.dependsOn()
	if n > len(stamps) {
		return false
	}
	for i := range n {
		if e.dep(i).under.stamp != stamps[i] {
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

package cachehook

import "time"

// dep is a tag that an entry depends on, with the stamp that it had before the
// entry's value was read from the database.
type dep struct {
	cell  *cell
	stamp stamp
}

// entry is one cached value. It is immutable.
type entry struct {
	value   any       // *rowset, or what a caller put by hand; see hand.go
	deps    []dep     // in the order of the lookup's cells
	expires int64     // on the cache's monotonic clock, nanoseconds
	read    time.Time // by when it had been read from a database, as far as this process knows
	bytes   int       // what it holds in memory, estimated
}

// entryOverhead is what an entry holds besides its value and key: the struct,
// the list element, the map's slot.
const entryOverhead = 256

func newEntry(value any, size int, cells []*cell, stamps []stamp, expires int64) *entry {
	e := &entry{value: value, deps: make([]dep, len(cells)), expires: expires, read: time.Now()}
	for i, c := range cells {
		e.deps[i] = dep{c, stamps[i]}
	}
	e.bytes = entryOverhead + size + 24*len(cells)
	return e
}

// withTyped returns an entry that has the rows' snapshot too.
func (e *entry) withTyped(set *rowset, t *snapshot) *entry {
	more := *set
	more.typed = t
	typed := *e
	typed.value = &more
	typed.bytes += t.bytes
	return &typed
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

// carries reports whether the entry was made under these stamps.
func (e *entry) carries(stamps []stamp) bool {
	if len(e.deps) != len(stamps) {
		return false
	}
	for i := range stamps {
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

package cachehook

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"
)

const l1Shards = 16 // a power of two

// memory is the first level: an LRU in 16 shards, bounded as a whole by entries
// and by bytes. Room is made before an entry goes in, so that neither bound is
// ever exceeded, not even for a moment. The entries themselves are the list: for
// one row a list's own elements would weigh as much as the row.
type memory struct {
	maxEntries, maxBytes int64
	seed                 maphash.Seed
	entries, bytes       atomic.Int64 // with what is about to be put
	evictions            atomic.Uint64
	weigh                func(e *entry, entries, bytes int64) // told of each that comes or goes
	shards               [l1Shards]l1Shard
	shared               [256]atomic.Pointer[deps] // in use; see sharedDeps
}

type l1Shard struct {
	mu    sync.Mutex // guards the rest, and the places of the entries
	items map[string]*entry
	ring  entry    // its older one is the newest, its newer one the oldest
	_     [64]byte // keeps neighbouring mutexes off one cache line
}

func newMemory(maxEntries int, maxBytes int64) *memory {
	m := &memory{weigh: func(*entry, int64, int64) {}, maxEntries: int64(maxEntries), maxBytes: maxBytes, seed: maphash.MakeSeed()}
	for i := range m.shards {
		sh := &m.shards[i]
		sh.items = make(map[string]*entry)
		sh.ring.newer, sh.ring.older = &sh.ring, &sh.ring
	}
	return m
}

// link makes e the newest.
func (sh *l1Shard) link(e *entry) {
	e.newer, e.older = &sh.ring, sh.ring.older
	e.older.newer, sh.ring.older = e, e
}

func unlink(e *entry) {
	e.newer.older, e.older.newer = e.older, e.newer
	e.newer, e.older = nil, nil
}

// drop takes e out.
func (sh *l1Shard) drop(e *entry) {
	delete(sh.items, e.key)
	unlink(e)
}

func (m *memory) index(key []byte) int { return int(maphash.Bytes(m.seed, key) % l1Shards) }

// get returns the entry of key, or nil. It does not keep key.
func (m *memory) get(key []byte) *entry {
	sh := &m.shards[m.index(key)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.items[lent(key)]
	if e != nil && sh.ring.older != e {
		unlink(e)
		sh.link(e)
	}
	return e
}

// off reports whether nothing is ever kept.
func (m *memory) off() bool { return m.maxEntries < 1 }

// lent is key as a string, for the time of a look-up only.
func lent(key []byte) string { return unsafe.String(unsafe.SliceData(key), len(key)) }

// cost is what an entry takes, with its key as the allocator rounds it.
func cost(keyLen int, e *entry) int64 { return int64(e.bytes) + int64(keyLen+15)&^15 }

// put stores e, which must be new, unless it alone is larger than all there may
// be.
func (m *memory) put(key []byte, e *entry) {
	room := cost(len(key), e)
	m.remove(key, nil)
	if room > m.maxBytes || m.off() {
		return
	}
	own := m.index(key)
	m.entries.Add(1)
	m.bytes.Add(room)
	for i, empty := own, 0; m.entries.Load() > m.maxEntries || m.bytes.Load() > m.maxBytes; i++ {
		if m.evictFrom(i % l1Shards) {
			empty = 0
		} else if empty++; empty > l1Shards {
			// All room is claimed by others that are about to put.
			m.entries.Add(-1)
			m.bytes.Add(-room)
			return
		}
	}
	sh := &m.shards[own]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if old := sh.items[lent(key)]; old != nil { // put by another meanwhile
		sh.drop(old)
		m.release(old)
	}
	e.key = string(key)
	sh.items[e.key] = e
	sh.link(e)
	m.weigh(e, 1, room)
}

// replace puts e in the place of old, if that is still there and room can be
// made for what e holds more.
func (m *memory) replace(key []byte, old, e *entry) {
	more := int64(e.bytes) - int64(old.bytes)
	if cost(len(key), e) > m.maxBytes {
		return
	}
	own := m.index(key)
	m.bytes.Add(max(more, 0))
	for i, empty := own+1, 0; m.bytes.Load() > m.maxBytes && empty <= l1Shards; i++ {
		if m.evictFrom(i % l1Shards) {
			empty = 0
		} else {
			empty++
		}
	}
	sh := &m.shards[own]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.items[lent(key)] != old || m.bytes.Load() > m.maxBytes {
		m.bytes.Add(-max(more, 0))
		return
	}
	m.bytes.Add(min(more, 0))
	m.weigh(e, 0, more)
	e.key = old.key
	unlink(old)
	sh.items[e.key] = e
	sh.link(e)
}

// evictFrom drops the least recently used entry of a shard, if it has one.
func (m *memory) evictFrom(shard int) bool {
	sh := &m.shards[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.ring.newer
	if e == &sh.ring {
		return false
	}
	sh.drop(e)
	m.release(e)
	m.evictions.Add(1)
	return true
}

// remove drops key; only if it is e, when e is given.
func (m *memory) remove(key []byte, e *entry) {
	sh := &m.shards[m.index(key)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if old := sh.items[lent(key)]; old != nil && (e == nil || e == old) {
		sh.drop(old)
		m.release(old)
	}
}

// release notes that an entry has left.
func (m *memory) release(e *entry) {
	room := cost(len(e.key), e)
	m.entries.Add(-1)
	m.bytes.Add(-room)
	m.weigh(e, -1, -room)
}

// clear drops everything.
func (m *memory) clear() {
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		for e := sh.ring.newer; e != &sh.ring; e = sh.ring.newer {
			sh.drop(e)
			m.release(e)
		}
		sh.mu.Unlock()
	}
}

package cachehook

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const l1Shards = 16 // a power of two

// memory is the first level: an LRU in 16 shards, bounded as a whole by entries
// and by bytes. Room is made before an entry goes in, so that neither bound is
// ever exceeded, not even for a moment.
type memory struct {
	maxEntries, maxBytes int64
	seed                 maphash.Seed
	entries, bytes       atomic.Int64 // with what is about to be put
	evictions            atomic.Uint64
	shards               [l1Shards]l1Shard
}

type l1Shard struct {
	mu  sync.Mutex // guards lru
	lru *simplelru.LRU[string, *entry]
	_   [64]byte // keeps neighbouring mutexes off one cache line
}

func newMemory(maxEntries int, maxBytes int64) *memory {
	m := &memory{maxEntries: int64(maxEntries), maxBytes: maxBytes, seed: maphash.MakeSeed()}
	for i := range m.shards {
		// NewLRU fails on a size below one only.
		m.shards[i].lru, _ = simplelru.NewLRU[string, *entry](max(maxEntries, 1), nil)
	}
	return m
}

func (m *memory) index(key []byte) int { return int(maphash.Bytes(m.seed, key) % l1Shards) }

// get returns the entry of key, or nil. It does not keep key.
func (m *memory) get(key []byte) *entry {
	sh := &m.shards[m.index(key)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, _ := sh.lru.Get(unsafe.String(unsafe.SliceData(key), len(key))) // for the time of the look-up only
	return e
}

// put stores e, unless it alone is larger than all there may be.
func (m *memory) put(key []byte, e *entry) {
	cost := int64(e.bytes + len(key))
	if cost > m.maxBytes || m.maxEntries < 1 {
		m.remove(key, nil)
		return
	}
	own := m.index(key)
	m.remove(key, nil)
	m.entries.Add(1)
	m.bytes.Add(cost)
	for i, empty := own, 0; m.entries.Load() > m.maxEntries || m.bytes.Load() > m.maxBytes; i++ {
		if m.evictFrom(i % l1Shards) {
			empty = 0
		} else if empty++; empty > l1Shards {
			// All room is claimed by others that are about to put.
			m.release(len(key), e)
			return
		}
	}
	sh := &m.shards[own]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if old, ok := sh.lru.Peek(string(key)); ok { // put by another meanwhile
		m.release(len(key), old)
	}
	sh.lru.Add(string(key), e)
}

// replace puts e in the place of old, if that is still there and room can be
// made for what e holds more.
func (m *memory) replace(key []byte, old, e *entry) {
	more := int64(e.bytes - old.bytes)
	if int64(e.bytes+len(key)) > m.maxBytes {
		return
	}
	own := m.index(key)
	m.bytes.Add(more)
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
	k := unsafe.String(unsafe.SliceData(key), len(key)) // the old one's stays
	if present, ok := sh.lru.Peek(k); !ok || present != old || m.bytes.Load() > m.maxBytes {
		m.bytes.Add(-more)
		return
	}
	sh.lru.Add(k, e)
}

// evictFrom drops the least recently used entry of a shard, if it has one.
func (m *memory) evictFrom(shard int) bool {
	sh := &m.shards[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	key, e, ok := sh.lru.RemoveOldest()
	if ok {
		m.release(len(key), e)
		m.evictions.Add(1)
	}
	return ok
}

// remove drops key; only if it is e, when e is given.
func (m *memory) remove(key []byte, e *entry) {
	sh := &m.shards[m.index(key)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	k := unsafe.String(unsafe.SliceData(key), len(key))
	if old, ok := sh.lru.Peek(k); ok && (e == nil || e == old) {
		sh.lru.Remove(k)
		m.release(len(key), old)
	}
}

func (m *memory) release(keyLen int, e *entry) {
	m.entries.Add(-1)
	m.bytes.Add(-int64(e.bytes + keyLen))
}

// clear drops everything.
func (m *memory) clear() {
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		for key, e, ok := sh.lru.RemoveOldest(); ok; key, e, ok = sh.lru.RemoveOldest() {
			m.release(len(key), e)
		}
		sh.mu.Unlock()
	}
}

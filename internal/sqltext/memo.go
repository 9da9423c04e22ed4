package sqltext

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// The memo has two floors. In front a direct-mapped table of atomic pointers
// answers for the texts in constant use with one hash, one load and one
// comparison, and no lock. Behind it sharded LRUs, bounded by entries and bytes,
// keep the rest. What falls out of either is read anew.
const (
	frontSlots   = 2048      // a power of two
	frontMaxText = 4 << 10   // bytes; bounds what the front can pin
	shardCount   = 16        // a power of two
	shardEntries = 512       // 8,192 texts in all
	shardBytes   = 2 << 20   // 32 MiB of texts and shapes in all
	maxMemoText  = 256 << 10 // bytes; longer texts are read each time
)

type memoTable struct {
	seed   maphash.Seed
	front  [frontSlots]atomic.Pointer[Statement]
	shards [shardCount]memoShard
}

type memoShard struct {
	mu    sync.Mutex // guards lru and bytes
	lru   *simplelru.LRU[string, *Statement]
	bytes int
	_     [64]byte // keeps neighbouring mutexes off one cache line
}

var memo = newMemo()

func newMemo() *memoTable {
	m := &memoTable{seed: maphash.MakeSeed()}
	for i := range m.shards {
		sh := &m.shards[i]
		// NewLRU fails on a size below one only.
		sh.lru, _ = simplelru.NewLRU(shardEntries, func(_ string, s *Statement) { sh.bytes -= s.size() })
	}
	return m
}

// Analyze returns what is known of text. It never panics, never blocks for long
// and never returns nil. A text seen lately costs one look-up and allocates
// nothing; see [Parse] for a new one. Safe for concurrent use. The Statement is
// shared and must not be changed.
func Analyze(text string) *Statement { return memo.analyze(text) }

func (m *memoTable) analyze(text string) *Statement {
	h := maphash.String(m.seed, text)
	slot := &m.front[h%frontSlots]
	if s := slot.Load(); s != nil && s.text == text {
		return s
	}
	return m.behind(h, slot, text)
}

func (m *memoTable) behind(h uint64, slot *atomic.Pointer[Statement], text string) *Statement {
	if len(text) > maxMemoText {
		return Parse(text)
	}
	sh := &m.shards[(h>>48)%shardCount]
	sh.mu.Lock()
	s, ok := sh.lru.Get(text)
	sh.mu.Unlock()
	if !ok {
		s = Parse(text) // outside the lock; two goroutines may do it at once
		sh.mu.Lock()
		sh.add(s)
		sh.mu.Unlock()
	}
	if len(text) <= frontMaxText {
		slot.Store(s)
	}
	return s
}

func (sh *memoShard) add(s *Statement) {
	if sh.lru.Contains(s.text) {
		return
	}
	sh.bytes += s.size()
	sh.lru.Add(s.text, s)
	for sh.bytes > shardBytes && sh.lru.Len() > 1 {
		sh.lru.RemoveOldest()
	}
}

// size is what a memoised statement pins, in bytes, near enough.
func (s *Statement) size() int {
	n := 512 + len(s.text) + len(s.Shape)
	n += 48 * (len(s.Reads) + len(s.Writes) + len(s.UnknownFunctions)) // their names are copies
	n += 16 * len(s.Functions)
	for i := range s.Where {
		n += 64 + 8*cap(s.Where[i].Args)
	}
	if u := s.Upsert; u != nil {
		n += 128 + 48*(len(u.Target)+len(u.Sets)) + 8*cap(u.Keys)
	}
	return n
}

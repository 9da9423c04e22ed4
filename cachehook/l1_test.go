package cachehook

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

func TestMemoryNeverExceedsItsBounds(t *testing.T) {
	t.Parallel()
	const maxEntries, maxBytes = 50, 40_000
	m := newMemory(maxEntries, maxBytes)
	held := func() (entries int, size int) {
		for i := range m.shards {
			sh := &m.shards[i]
			sh.mu.Lock()
			for k, e := range sh.items {
				entries, size = entries+1, size+int(cost(len(k), e))
			}
			sh.mu.Unlock()
		}
		return entries, size
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 5000 {
				key := fmt.Appendf(nil, "k%d", r.IntN(200))
				switch r.IntN(4) {
				case 0:
					m.remove(key, nil)
				case 1:
					m.get(key)
				default:
					m.put(key, m.newEntry(nil, r.IntN(3000), nil, nil, 0))
				}
				if m.entries.Load() > maxEntries+4 { // what is about to be put counts
					t.Errorf("%d entries", m.entries.Load())
				}
			}
		})
	}
	wg.Wait()
	entries, size := held()
	if entries > maxEntries || size > maxBytes {
		t.Fatalf("%d entries, %d bytes", entries, size)
	}
	equal(t, "entries counted", m.entries.Load(), int64(entries))
	equal(t, "bytes counted", m.bytes.Load(), int64(size))
	m.clear()
	equal(t, "bytes after clear", m.bytes.Load(), 0)
	equal(t, "entries after clear", m.entries.Load(), 0)
}

func TestMemoryRefusesWhatIsLargerThanAll(t *testing.T) {
	t.Parallel()
	m := newMemory(10, 1000)
	m.put([]byte("a"), m.newEntry(nil, 100, nil, nil, 0))
	m.put([]byte("a"), m.newEntry(nil, 5000, nil, nil, 0))
	if m.get([]byte("a")) != nil {
		t.Fatal("the old entry stayed, or the new one went in")
	}
	equal(t, "bytes", m.bytes.Load(), 0)
}

func TestMemoryKeepsWhatWasUsedLast(t *testing.T) {
	t.Parallel()
	m := newMemory(100, 1<<20)
	hot := []byte("hot")
	m.put(hot, m.newEntry("x", 1, nil, nil, 0))
	for i := range 1000 {
		m.get(hot)
		m.put(fmt.Appendf(nil, "%d", i), m.newEntry(nil, 1, nil, nil, 0))
	}
	if m.get(hot) == nil && m.evictions.Load() < 900 {
		t.Fatal("the entry in constant use was evicted")
	}
	equal(t, "entries", m.entries.Load(), 100)
}

package metrics

import (
	"maps"
	"math"
	"sync"
	"sync/atomic"
)

// grown is a map that is read by everybody at once without a lock, and copied
// when it grows, which happens once for each key of few.
type grown[K comparable, V any] struct {
	mu      sync.Mutex // one writer at a time
	entries atomic.Pointer[map[K]V]
}

func (g *grown[K, V]) load() map[K]V {
	if m := g.entries.Load(); m != nil {
		return *m
	}
	return nil
}

func (g *grown[K, V]) get(key K) (V, bool) {
	v, ok := g.load()[key]
	return v, ok
}

const unbounded = math.MaxInt

// add returns the value of key, making it if there is none yet and fewer than
// limit entries; otherwise it reports false.
func (g *grown[K, V]) add(key K, limit int, mk func() V) (V, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.load()
	v, ok := old[key]
	if ok || len(old) >= limit {
		return v, ok
	}
	m := make(map[K]V, len(old)+1)
	maps.Copy(m, old)
	v = mk()
	m[key] = v
	g.entries.Store(&m)
	return v, true
}

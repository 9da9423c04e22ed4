package slowlog

import (
	"cmp"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// history keeps the latest entries in a ring, and totals and plans by shape. The
// shape slow least recently goes first. Half of the bytes is for either.
type history struct {
	mu sync.Mutex // guards all below

	ring  []Entry // grows up to maxEntries
	first int     // the oldest
	n     int
	bytes int // of the entries

	shapes     *simplelru.LRU[uint64, *shapeState]
	shapeBytes int

	maxEntries, maxHalf int
}

type shapeState struct {
	total     Total
	explained time.Time // when its plan was last asked for
}

func newHistory(entries, bytes int) *history {
	h := &history{maxEntries: entries, maxHalf: bytes / 2}
	// NewLRU fails on a size below one only, which Validate refuses.
	h.shapes, _ = simplelru.NewLRU(max(entries, 1), func(_ uint64, s *shapeState) { h.shapeBytes -= s.size() })
	return h
}

// add keeps e and sets its Seen and Plan.
func (h *history) add(e *Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.shapes.Get(e.Fingerprint)
	if !ok {
		s = &shapeState{total: Total{Fingerprint: e.Fingerprint, Shape: e.Shape, Operation: e.Operation, Table: e.Table}}
		h.shapeBytes += s.size()
		h.shapes.Add(e.Fingerprint, s)
	}
	s.total.Count++
	s.total.Sum += e.Own()
	s.total.Max = max(s.total.Max, e.Own())
	s.total.Last = e.Time
	e.Seen, e.Plan = s.total.Count, s.total.Plan
	h.trimShapes()
	h.push(*e)
}

// push puts e into the ring. Plans are not pinned by it: they are looked up when
// somebody reads.
func (h *history) push(e Entry) {
	e.Plan = nil
	size := e.size()
	if size > h.maxHalf {
		return
	}
	for h.n > 0 && (h.n == h.maxEntries || h.bytes+size > h.maxHalf) {
		h.dropOldest()
	}
	if h.n == len(h.ring) { // below maxEntries: it grows
		if h.first > 0 {
			h.ring, h.first = slices.Concat(h.ring[h.first:], h.ring[:h.first]), 0
		}
		h.ring = append(h.ring, Entry{})
	}
	h.ring[(h.first+h.n)%len(h.ring)] = e
	h.n++
	h.bytes += size
}

func (h *history) dropOldest() {
	h.bytes -= h.ring[h.first].size()
	h.ring[h.first] = Entry{}
	h.first = (h.first + 1) % len(h.ring)
	h.n--
}

func (h *history) trimShapes() {
	for h.shapeBytes > h.maxHalf && h.shapes.Len() > 0 {
		h.shapes.RemoveOldest()
	}
}

// claim reports whether the shape's plan is due at now, and notes that it is
// asked for.
func (h *history) claim(fingerprint uint64, now time.Time, every time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.shapes.Peek(fingerprint)
	if !ok || !s.explained.IsZero() && now.Sub(s.explained) < every {
		return false
	}
	s.explained = now
	return true
}

// unclaim takes a claim back: the plan was not asked for after all.
func (h *history) unclaim(fingerprint uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s, ok := h.shapes.Peek(fingerprint); ok {
		s.explained = time.Time{}
	}
}

func (h *history) setPlan(fingerprint uint64, plan *QueryPlan) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.shapes.Peek(fingerprint)
	if !ok {
		return
	}
	h.shapeBytes -= s.size()
	s.total.Plan = plan
	h.shapeBytes += s.size()
	h.trimShapes()
}

// entries returns the kept ones, newest first.
func (h *history) entries() []Entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Entry, 0, h.n)
	for i := h.n - 1; i >= 0; i-- {
		e := h.ring[(h.first+i)%len(h.ring)]
		if s, ok := h.shapes.Peek(e.Fingerprint); ok {
			e.Plan = s.total.Plan
		}
		out = append(out, e)
	}
	return out
}

// top returns the n shapes of the greatest total time.
func (h *history) top(n int) []Total {
	h.mu.Lock()
	all := make([]Total, 0, h.shapes.Len())
	for _, s := range h.shapes.Values() {
		all = append(all, s.total)
	}
	h.mu.Unlock()
	slices.SortFunc(all, func(a, b Total) int {
		return cmp.Or(cmp.Compare(b.Sum, a.Sum), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return all[:min(max(n, 0), len(all))]
}

func (h *history) size() (entries, shapes, bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n, h.shapes.Len(), h.bytes + h.shapeBytes
}

// size is what e occupies, near enough: strings that it may share count in full.
func (e *Entry) size() int {
	return int(unsafe.Sizeof(*e)) + len(e.Shape) + len(e.Table) + len(e.Node) + len(e.Route) + len(e.User) + len(e.TraceID) + len(e.Error)
}

func (s *shapeState) size() int {
	const lru = 160 // an element of the list and its place in the map
	return int(unsafe.Sizeof(*s)) + lru + len(s.total.Shape) + len(s.total.Table) + s.total.Plan.size()
}

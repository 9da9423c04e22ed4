package limithook

import (
	"context"
	"math/bits"
	"sync"
	"time"
)

// maxShards is the most parts the identities are spread over, each behind a
// mutex of its own.
const maxShards = 64

// memory keeps the logs of a single process: one per identity and one for all
// together. Every decision is exact; it holds the mutex of the identity's
// shard and, inside it, that of the global log.
type memory struct {
	clock  func() int64
	user   rate
	global rate
	shards []memoryShard

	globalMu  sync.Mutex // guards globalLog
	globalLog log
}

type memoryShard struct {
	mu   sync.Mutex // guards what follows
	byID map[string]*idle
	room int // most identities in byID
	// The identities in the order of their last admission: the first is the
	// first whose window runs empty.
	first, last *idle
	// overflow is the log that the identities without room share.
	overflow log
	shared   uint64 // decisions made on overflow

	_ [32]byte // keeps the mutexes of neighbours on cache lines of their own
}

// idle is one identity's log in the order of idleness.
type idle struct {
	log
	key        string
	prev, next *idle
	shard      *memoryShard // never changes
	gone       bool         // removed from it
}

func newMemory(user, global Limit, maxKeys int, clock func() int64) *memory {
	n := 1 << (bits.Len(uint(min(maxShards, maxKeys))) - 1)
	m := &memory{
		clock:  clock,
		user:   rate{user.Max, int64(user.Window)},
		global: rate{global.Max, int64(global.Window)},
		shards: make([]memoryShard, n),
	}
	for i := range m.shards {
		m.shards[i].byID = make(map[string]*idle)
		m.shards[i].room = maxKeys / n
	}
	return m
}

func (m *memory) decide(_ context.Context, s *subject, n int) (outcome, error) {
	return m.run(s, n, true), nil
}

func (m *memory) peek(_ context.Context, s *subject) (outcome, error) {
	return m.run(s, 1, false), nil
}

// run decides on a cost of n and charges it, or only looks.
func (m *memory) run(s *subject, n int, charge bool) outcome {
	now := m.clock()
	if m.user.max == 0 || s.key == "" {
		return m.admit(now, n, charge, account{})
	}
	sh := &m.shards[s.hash&uint64(len(m.shards)-1)]
	sh.mu.Lock()
	l, e := sh.find(s, now, m.user.width, charge)
	o := m.admit(now, n, charge, account{l, m.user})
	switch {
	case e == nil || !charge:
	case o.ok:
		sh.moveToEnd(e)
	case e.size == 0:
		sh.remove(e) // refused by the global limit: nothing to remember
	}
	sh.mu.Unlock()
	return o
}

// admit decides on the global limit too, where there is one.
func (m *memory) admit(now int64, n int, charge bool, user account) (o outcome) {
	if m.global.max == 0 {
		o.ok, o.user, o.global = admit(now, n, charge, user, account{})
		return o
	}
	m.globalMu.Lock()
	o.ok, o.user, o.global = admit(now, n, charge, user, account{&m.globalLog, m.global})
	m.globalMu.Unlock()
	return o
}

// find returns the log of an identity and its place in the order; no place
// when the log is shared or not to be kept.
func (sh *memoryShard) find(s *subject, now, width int64, keep bool) (*log, *idle) {
	e := s.log.Load()
	if e != nil && e.shard == sh && !e.gone {
		return &e.log, e
	}
	if e = sh.byID[s.key]; e != nil {
		s.log.Store(e)
		return &e.log, e
	}
	sh.overflow.drop(sh.overflow.expired(max(now, sh.overflow.newest()), width))
	if !keep {
		l := sh.overflow.copyOf()
		return &l, nil
	}
	// Two at a time: the ones that are gone are forgotten faster than others
	// arrive, and no decision pays for many.
	for range 2 {
		if e := sh.first; e != nil && (e.size == 0 || now-e.newest() >= width) {
			sh.remove(e)
		}
	}
	if len(sh.byID) >= sh.room {
		sh.shared++
		return &sh.overflow, nil
	}
	// What is on the shared log may have been this identity's: it takes all
	// of it along, so that moving out admits nobody twice.
	e = &idle{log: sh.overflow.copyOf(), key: s.key, shard: sh}
	sh.byID[s.key] = e
	s.log.Store(e)
	sh.append(e)
	return &e.log, e
}

func (sh *memoryShard) moveToEnd(e *idle) {
	if sh.last != e {
		sh.unlink(e)
		sh.append(e)
	}
}

func (sh *memoryShard) remove(e *idle) {
	sh.unlink(e)
	delete(sh.byID, e.key)
	e.gone = true
}

func (sh *memoryShard) append(e *idle) {
	e.prev, e.next = sh.last, nil
	if sh.last == nil {
		sh.first = e
	} else {
		sh.last.next = e
	}
	sh.last = e
}

func (sh *memoryShard) unlink(e *idle) {
	if e.prev == nil {
		sh.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		sh.last = e.prev
	} else {
		e.next.prev = e.prev
	}
}

// fit returns the cost, or the most that both limits admit at once.
func (m *memory) fit(s *subject, cost int) int {
	if m.user.max > 0 && s.key != "" {
		cost = min(cost, m.user.max)
	}
	if m.global.max > 0 {
		cost = min(cost, m.global.max)
	}
	return cost
}

// reset forgets what an identity was charged. What it was charged on a shared
// log stays there until its window has passed.
func (m *memory) reset(_ context.Context, s *subject) error {
	sh := &m.shards[s.hash&uint64(len(m.shards)-1)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.byID[s.key]; e != nil {
		sh.remove(e)
	}
	return nil
}

func (m *memory) stats(st *Stats) {
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		st.Keys += len(sh.byID)
		st.Overflow += sh.shared
		sh.mu.Unlock()
	}
}

func (m *memory) close() {}

var (
	_ store = (*memory)(nil)

	origin = time.Now()
)

// monotonic is the time since the process started. It never steps and costs
// half of time.Now.
func monotonic() int64 { return int64(time.Since(origin)) }

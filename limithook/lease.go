package limithook

import (
	"sync"
	"sync/atomic"
	"time"
)

// rememberFor bounds how long a refusal is repeated without asking Redis. It
// is how late another process's reset of a user can show here, at the latest.
const rememberFor = time.Second

// holding is what a process knows of one account in Redis and what it has
// leased from it. Instants are the process's own, in nanoseconds. What can be
// decided from it takes no lock.
type holding struct {
	lease lease // what may be spent

	refusal   atomic.Pointer[refusal] // the last answer's, nil when it admitted
	remaining atomic.Int64            // by the last answer, what was leased excluded
	resetAt   atomic.Int64            // by the last answer
	armed     atomic.Int64            // when Redis was last told how long to keep the log; 0: never

	keys  [2]string // in Redis: the log and the leases
	share int       // of the global limit that lies next to it
	table *holdingTable
	gone  atomic.Bool // from the table

	mu     sync.Mutex // guards what follows
	stamp  int64      // the instant on Redis' clock that the lease is charged at
	until  int64      // the latest lease, or answer without one, is fresh before this instant
	size   int        // of the next lease, the request that asks for it included
	asking bool       // a call that asks for a lease is under way
}

// lease is what may be spent without asking, in one word: below, unitBits of
// units; above, the instant before which they may be, in 2^20 nanoseconds. Of two
// leases that end within the same of these, about a millisecond, it does not matter
// from which a unit is spent: neither has ended.
type lease struct{ word atomic.Uint64 }

const (
	unitBits = 24
	unitMask = 1<<unitBits - 1
	tickBits = 20
)

// fill replaces the lease; what was left of the one before is lost until its
// window has passed.
func (l *lease) fill(units int, until int64) {
	l.word.Store(uint64(max(0, until)>>tickBits)<<unitBits | uint64(units))
}

// spend takes n units if so many may be spent now. The tick is to give them back.
func (l *lease) spend(now int64, n int) (tick uint64, ok bool) {
	for {
		w := l.word.Load()
		if w&unitMask < uint64(n) || w>>unitBits <= uint64(now)>>tickBits {
			return 0, false
		}
		if l.word.CompareAndSwap(w, w-uint64(n)) {
			return w >> unitBits, true
		}
	}
}

// covers reports whether n units may be spent now.
func (l *lease) covers(now int64, n int) bool {
	w := l.word.Load()
	return w&unitMask >= uint64(n) && w>>unitBits > uint64(now)>>tickBits
}

// giveBack returns units that were spent for a request that did not pass,
// unless the lease has changed meanwhile: then they are lost until their window
// has passed.
func (l *lease) giveBack(tick uint64, n int) {
	for {
		w := l.word.Load()
		if w>>unitBits != tick || l.word.CompareAndSwap(w, w+uint64(n)) {
			return
		}
	}
}

// take empties the lease.
func (l *lease) take() (units int) { return int(l.word.Swap(0) & unitMask) }

func (l *lease) units() int { return int(l.word.Load() & unitMask) }

// refusal is an answer that refused. It never changes.
type refusal struct {
	cost  int
	until int64 // it is repeated before this instant
	retry int64 // when the request is admitted
	epoch int64 // see epochs
}

// refused returns how long a request of this cost has to wait if a refusal is
// remembered, and 0 otherwise.
func (h *holding) refused(now int64, cost int, epochs []atomic.Int64) int64 {
	r := h.refusal.Load()
	if r == nil || r.cost != cost || now >= r.until || r.epoch < epochs[h.share].Load() {
		return 0
	}
	return r.retry - now
}

// extra returns how much to lease beyond a request of this cost, and notes
// that it was asked for. Of several calls at a time one asks.
func (h *holding) extra(now int64, cost, most int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asking || most <= 1 {
		return 0
	}
	switch left := h.lease.units(); {
	case h.size == 0:
		h.size = 2
	case now >= h.until && left > 0: // not used up in its time
		h.lease.take()
		h.size = max(h.size/2, 1)
	case now < h.until && left == 0: // used up before its time
		h.size = min(h.size*2, most)
	}
	if h.size <= cost {
		return 0
	}
	h.asking = true
	return h.size - cost
}

// asked ends what extra began.
func (h *holding) asked() {
	h.mu.Lock()
	h.asking = false
	h.mu.Unlock()
}

// settle takes an answer of Redis in. sent and got are when the call began and
// ended; term is how long a lease lasts.
func (h *holding) settle(a *reply, cost int, sent, got, term int64) {
	h.remaining.Store(int64(a.remaining))
	h.resetAt.Store(got + a.reset)
	h.mu.Lock()
	// Redis began the term later than sent. The thousandth taken off covers
	// clocks that do not run equally fast.
	until := sent + term - term/1024
	if a.granted > 0 {
		h.lease.fill(a.granted, until)
		h.stamp, h.until = a.stamp, until
	} else if h.lease.units() == 0 {
		h.until = until
	}
	h.mu.Unlock()
	switch {
	case a.wait > 0:
		// The wait began between sent and got. A request that comes after
		// the earlier is let through to Redis, and a caller told the later
		// is not refused again.
		h.refusal.Store(&refusal{
			cost: cost, epoch: a.epoch, retry: got + a.wait,
			until: min(sent+a.wait, got+int64(rememberFor)),
		})
	case cost > 0:
		h.refusal.Store(nil)
	}
}

func (h *holding) standing(now int64) standing {
	return standing{remaining: int(h.remaining.Load()) + h.lease.units(), reset: max(0, h.resetAt.Load()-now)}
}

// unspent takes the lease away, to be given back to Redis.
func (h *holding) unspent(now int64) (u unspent, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := now < h.until
	u = unspent{key: h.keys[1], share: h.share, stamp: h.stamp, units: h.lease.take()}
	return u, u.units > 0 && fresh
}

package limithook

import "time"

// rememberFor bounds how long a refusal is repeated without asking Redis. It
// is how late another process's reset of a user can show here.
const rememberFor = time.Second

// holding is what a process knows of one account in Redis and what it has
// leased from it. Instants are the process's own, in nanoseconds. It is not
// safe for concurrent use.
type holding struct {
	units int   // leased and not spent
	until int64 // units may be spent before this instant; set by answers without units too
	stamp int64 // the instant on Redis' clock that the units are charged at
	size  int   // of the next lease, the request that asks for it included

	asking bool // a call that asks for a lease is under way

	remaining int   // by the last answer, what was leased excluded
	resetAt   int64 // by the last answer

	shard *sharedShard // that it is in, nil for all together; never changes
	gone  bool         // removed from it

	refusedCost  int // a request of this cost was refused
	refusedUntil int64
	retryAt      int64
}

// refused returns how long a request of this cost has to wait if a refusal is
// remembered, and 0 otherwise.
func (h *holding) refused(now int64, cost int) int64 {
	if h.refusedCost == cost && now < h.refusedUntil {
		return h.retryAt - now
	}
	return 0
}

// has reports whether the lease covers the cost.
func (h *holding) has(now int64, cost int) bool {
	if h.units > 0 && now >= h.until {
		h.units = 0
		h.size = max(h.size/2, 1)
	}
	return h.units >= cost
}

// extra returns how much to lease beyond a request of this cost, and notes
// that it was asked for. Of several calls at a time one asks.
func (h *holding) extra(now int64, cost, most int) int {
	if h.asking || most <= 1 {
		return 0
	}
	if h.size == 0 {
		h.size = 2
	} else if h.units == 0 && now < h.until {
		h.size = min(h.size*2, most) // spent before its time
	}
	if h.size <= cost {
		return 0
	}
	h.asking = true
	return h.size - cost
}

// giveBack returns units reserved for a request that another limit refused,
// unless the lease has changed meanwhile: then they are lost until their
// window has passed.
func (h *holding) giveBack(stamp int64, units int) {
	if h.stamp == stamp {
		h.units += units
	}
}

// settle takes an answer of Redis in. sent and got are when the call began and
// ended; term is how long a lease lasts.
func (h *holding) settle(a *reply, cost int, sent, got, term int64) {
	h.remaining = a.remaining
	h.resetAt = got + a.reset
	if a.granted > 0 || h.units == 0 {
		// Redis began the term later than sent. The thousandth taken off
		// covers clocks that do not run equally fast.
		h.units, h.stamp, h.until = a.granted, a.stamp, sent+term-term/1024
	}
	if a.wait > 0 {
		h.refusedCost = cost
		// The wait began between sent and got. A request that comes after
		// the earlier is let through to Redis, and a caller told the later
		// is not refused again.
		h.retryAt = got + a.wait
		h.refusedUntil = min(sent+a.wait, got+int64(rememberFor))
	} else if cost > 0 {
		h.refusedCost = 0
	}
}

func (h *holding) standing(now int64) standing {
	return standing{remaining: h.remaining + h.units, reset: max(0, h.resetAt-now)}
}

package limithook

import "math"

// This file is the algorithm. It knows no clock, lock, server, request or
// statement: instants are nanoseconds (or microseconds, or anything) since an
// origin of the caller's choice.
//
// An exact sliding log keeps the instant of every admission of the last
// window. An instant a counts at every t with a <= t < a+width, which is the
// half-open trailing window (t-width, t], and so the number of instants kept
// *is* the number admitted in the window. Cheaper schemes are not exact: a
// fixed window, two weighted buckets and GCRA with a burst of L all admit
// close to 2 L within one window.

// rate is a limit in the clock's unit.
type rate struct {
	max   int
	width int64
}

// log holds the instants of one key, oldest first, in a ring whose length is
// zero or a power of two. It is not safe for concurrent use.
type log struct {
	ring []int64
	head int
	size int
}

func (l *log) at(i int) int64 { return l.ring[(l.head+i)&(len(l.ring)-1)] }

// newest returns the latest instant, or the earliest possible one when empty.
func (l *log) newest() int64 {
	if l.size == 0 {
		return math.MinInt64
	}
	return l.at(l.size - 1)
}

// expired counts the instants that have left the window that ends at now.
func (l *log) expired(now, width int64) int {
	if l.size == 0 || now-l.ring[l.head] < width {
		return 0
	}
	// Few have left since the last request, most often: search from the oldest on.
	high := 1
	for high < l.size && now-l.at(high) >= width {
		high *= 2
	}
	low := high/2 + 1
	high = min(high, l.size)
	for low < high {
		if middle := (low + high) / 2; now-l.at(middle) < width {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// drop forgets the n oldest instants.
func (l *log) drop(n int) {
	if n > 0 {
		l.head = (l.head + n) & (len(l.ring) - 1)
		l.size -= n
	}
}

// push records n admissions at one instant.
func (l *log) push(at int64, n int) {
	if l.size+n > len(l.ring) {
		l.grow(l.size + n)
	}
	mask := len(l.ring) - 1
	for range n {
		l.ring[(l.head+l.size)&mask] = at
		l.size++
	}
}

func (l *log) grow(need int) {
	length := max(8, len(l.ring))
	for length < need {
		length *= 2
	}
	ring := make([]int64, length)
	for i := range l.size {
		ring[i] = l.at(i)
	}
	l.ring, l.head = ring, 0
}

// copyOf returns a log with the same instants.
func (l *log) copyOf() log {
	c := log{}
	if l.size > 0 {
		c.grow(l.size)
		for i := range l.size {
			c.ring[i] = l.at(i)
		}
		c.size = l.size
	}
	return c
}

// account is one log with its limit, and how it stands before or after a
// decision.
type account struct {
	log  *log
	rate rate
	standing
	expired int // instants that have left the window
}

// standing describes an account.
type standing struct {
	wait      int64 // until the request would have been admitted; 0: admitted
	remaining int   // further requests of cost 1 that would be admitted now
	reset     int64 // until remaining next grows; 0 when nothing is charged
}

// look finds how the account stands for a request of cost n, at most rate.max.
func (a *account) look(now int64, n int) {
	a.expired = a.log.expired(now, a.rate.width)
	charged := a.log.size - a.expired
	a.standing = standing{remaining: max(0, a.rate.max-charged)}
	if charged > 0 {
		a.reset = a.log.at(a.expired) + a.rate.width - now
	}
	if over := charged + n - a.rate.max; over > 0 {
		// The request fits when the over-th oldest instant leaves the window.
		a.wait = a.log.at(a.expired+over-1) + a.rate.width - now
	}
}

// charge records an admission of cost n.
func (a *account) charge(now int64, n int) {
	a.log.drop(a.expired)
	a.log.push(now, n)
	a.remaining -= n
	if a.reset == 0 {
		a.reset = a.rate.width
	}
}

// admit decides on a request of cost n against all accounts at once and charges
// all or none. Without charge it only looks.
//
// A clock that stepped back is held at the newest instant recorded: then
// instants never decrease, so the oldest is always the first, and an admission
// is never recorded earlier than it happened. Nothing but an admission changes
// a log: a refusal that saw a clock ahead of its time would otherwise forget
// what still counts when the clock is put right.
func admit(now int64, n int, charge bool, accounts []account) (ok bool) {
	for i := range accounts {
		now = max(now, accounts[i].log.newest())
	}
	ok = true
	for i := range accounts {
		a := &accounts[i]
		a.look(now, n)
		ok = ok && a.wait == 0
	}
	if !ok || !charge {
		return ok
	}
	for i := range accounts {
		accounts[i].charge(now, n)
	}
	return true
}

// admitBoth is admit of two accounts, to be charged: unrolled it takes a tenth less.
func admitBoth(now int64, n int, a, b *account) (ok bool) {
	now = max(now, a.log.newest(), b.log.newest())
	a.look(now, n)
	b.look(now, n)
	if a.wait != 0 || b.wait != 0 {
		return false
	}
	a.charge(now, n)
	b.charge(now, n)
	return true
}

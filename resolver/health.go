package resolver

import "time"

// failure is a kind of evidence against a node.
type failure uint8

const (
	noFailure failure = iota
	refused           // dial refused, server shutting down or starting, connection lost: out at once
	timedOut          // no answer in time: out when it is the second in a row
	conflict          // a standby cancelled the query: says nothing about its health
	saturated         // no free connection slot on the server: it lives
	dropped           // the server gave up this one connection, which was idle
)

var failureNames = [...]string{"none", "no connection", "no answer", "recovery conflict", "saturated", "connection dropped"}

func (f failure) String() string { return failureNames[f] }

// How much evidence it takes.
const (
	timeoutsToEject = 2
	goodsToReturn   = 2
)

// How ejection grows with repetition.
const (
	firstPenalty = 500 * time.Millisecond // at the second ejection, then doubled
	maxPenalty   = 30 * time.Second
	calmTime     = time.Minute
)

// health decides whether a node is in rotation, by what its probes and its
// users saw. It knows nothing of lag: a node that lags is not ill. It is not
// safe for concurrent use.
type health struct {
	in        bool
	seen      bool // a probe has ended, well or not
	timeouts  int  // in a row
	goods     int  // in a row, of probes sent after the ejection
	ejectedAt int64
	ejections uint64
	since     int64   // when it came into rotation
	streak    int     // ejections without a calm time between them
	until     int64   // it does not return before
	cause     failure // of the present ejection
}

// good notes an answer to a probe that was sent at sent, and reports whether the
// node came into rotation by it. The first answer ever is enough; after an
// ejection it takes two, and a probe that was under way at the ejection does not
// count, since it may have been answered before the node fell.
func (h *health) good(sent int64) (returned bool) {
	first := !h.seen
	h.seen, h.timeouts = true, 0
	if h.in {
		return false
	}
	if h.ejections > 0 && sent <= h.ejectedAt {
		return false
	}
	h.goods++
	if !first && h.goods < goodsToReturn || sent < h.until {
		return false
	}
	h.in, h.goods, h.cause, h.since = true, 0, noFailure, sent
	return true
}

// enlist puts the node into rotation at now, whatever was before.
func (h *health) enlist(now int64) {
	h.in, h.seen, h.timeouts, h.goods, h.cause, h.since = true, true, 0, 0, noFailure, now
	h.hasten()
}

// hasten lets the node return as soon as it answers: nobody stands in for a
// primary.
func (h *health) hasten() { h.streak, h.until = 0, 0 }

// penalty is how long a node stays out at least: after the first ejection as long
// as two good probes take, and longer with each that follows before the node was
// in for calmTime.
func (h *health) penalty() int64 {
	if h.streak < 2 {
		return 0
	}
	return min(int64(firstPenalty)<<min(h.streak-2, 16), int64(maxPenalty))
}

// bad notes evidence against the node and reports whether it left the rotation
// by it.
func (h *health) bad(f failure, now int64) (ejected bool) {
	switch f {
	case refused:
	case timedOut:
		h.timeouts++
		h.goods = 0
		if h.in && h.timeouts < timeoutsToEject {
			return false
		}
	default:
		return false
	}
	ejected = h.in
	if ejected {
		h.ejections++
		if now-h.since > int64(calmTime) {
			h.streak = 0
		}
		h.streak++
		h.until = now + h.penalty()
	}
	if !h.seen || ejected {
		h.cause = f
	}
	h.in, h.seen, h.goods, h.ejectedAt = false, true, 0, now
	return ejected
}

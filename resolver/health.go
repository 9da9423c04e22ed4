package resolver

// failure is a kind of evidence against a node.
type failure uint8

const (
	noFailure failure = iota
	refused           // dial refused, server shutting down or starting, connection lost: out at once
	timedOut          // no answer in time: out when it is the second in a row
	conflict          // a standby cancelled the query: says nothing about its health
	saturated         // no free connection slot on the server: it lives
)

var failureNames = [...]string{"none", "no connection", "no answer", "recovery conflict", "saturated"}

func (f failure) String() string { return failureNames[f] }

// How much evidence it takes.
const (
	timeoutsToEject = 2
	goodsToReturn   = 2
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
	if !first && h.goods < goodsToReturn {
		return false
	}
	h.in, h.goods, h.cause = true, 0, noFailure
	return true
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
	}
	if !h.seen || ejected {
		h.cause = f
	}
	h.in, h.seen, h.goods, h.ejectedAt = false, true, 0, now
	return ejected
}

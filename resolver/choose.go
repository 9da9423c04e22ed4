package resolver

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// member is what choosing knows of a node. The atomics are written by probes and
// by statements that end, and read by each decision.
type member struct {
	node   *node
	index  int // among the replicas of the configuration
	name   string
	zone   string
	weight int
	pool   any // for a Policy that knows pools

	// valid is the time at which the last probe's verdict expires, fresh the
	// time since which the node may lack commits, replayed its WAL position.
	valid    atomic.Int64
	fresh    atomic.Int64
	replayed atomic.Uint64
	// run numbers the node's lives: it changes when the node may have restarted,
	// and so may have less than it has shown.
	run      atomic.Uint64
	unplaced bool // a database without WAL positions: nothing is known of its staleness

	inFlight atomic.Int64
	latency  atomic.Int64 // EWMA of successful statements in nanoseconds, 0: none yet

	// rest is the part of its share that the node does not take yet, of 1<<32.
	rest atomic.Uint32
}

// ewmaShift makes a new measurement count an eighth.
const ewmaShift = 3

// observe takes a successful statement's time into the average. Concurrent calls
// may lose one another's measurement, which an average bears.
func (m *member) observe(d time.Duration) {
	old := m.latency.Load()
	if old == 0 {
		m.latency.Store(max(int64(d), 1))
		return
	}
	m.latency.Store(max(old+(int64(d)-old)>>ewmaShift, 1))
}

// demand is what one read asks of a replica.
type demand struct {
	now     int64
	after   int64 // the node's state must be younger than this time
	seen    int64 // so must that of any other node than stay
	stay    *member
	minLSN  uint64 // the node must have replayed this
	any     bool   // any staleness is accepted, so that unplaced nodes will do
	exclude *member
	lot     uint32 // of a read while a node ramps up; 0: none
}

// flaw is what makes a node unfit for a read, the mildest first.
type flaw uint8

const (
	flawNone  flaw = iota
	flawSeen       // perhaps behind what the session was shown
	flawStale      // behind what the read must see
	flawLSN        // behind the WAL position that the read needs
	flawDown       // out of rotation, or its verdict has expired
)

// flawOf judges one node of the rotation.
func (m *member) flawOf(d *demand) flaw {
	if m == d.exclude || m.valid.Load() < d.now {
		return flawDown
	}
	if d.lot > ^m.rest.Load() {
		return flawStale // of no consequence: without a lot it is asked again
	}
	fresh := m.fresh.Load()
	switch {
	case m.unplaced:
		if !d.any {
			return flawStale
		}
		if d.minLSN > 0 {
			return flawLSN
		}
	case fresh <= d.after:
		return flawStale
	case m.replayed.Load() < d.minLSN:
		return flawLSN
	}
	if d.seen > 0 && fresh <= d.seen && m != d.stay {
		return flawSeen
	}
	return flawNone
}

// rotation is the replicas that reads are shared out to, an immutable snapshot.
type rotation struct {
	list       []Candidate
	configured int  // of which there may be so many
	ramping    bool // one of them does not take all of its share yet
}

// has reports whether m takes reads.
func (r *rotation) has(m *member) bool {
	for _, c := range r.list {
		if c.m == m {
			return true
		}
	}
	return false
}

// pickAny is pick without a look at slow starts. The draws are made first and
// judged afterwards: as long as all replicas are
// fit, which is nearly always, nobody is looked at in vain.
func (r *rotation) pickAny(p Policy, d *demand) (*member, flaw) {
	n := len(r.list)
	if n == 0 {
		return nil, flawDown
	}
	if p == nil {
		a, b := r.list[0].m, r.list[0].m
		if n > 1 {
			a, b = drawTwo(r.list)
		}
		af := a.flawOf(d)
		bf := af
		if b != a {
			bf = b.flawOf(d)
		}
		switch {
		case af == flawNone && bf == flawNone:
			return lighter(a, b), flawNone
		case af == flawNone:
			return a, flawNone
		case bf == flawNone:
			return b, flawNone
		}
	}
	return r.pickSlow(p, d)
}

// pickSlow looks at all replicas and lets the policy choose among the fit ones.
func (r *rotation) pickSlow(p Policy, d *demand) (*member, flaw) {
	least, fit, total := flawDown, 0, 0
	for _, c := range r.list {
		f := c.m.flawOf(d)
		least = min(least, f)
		if f == flawNone {
			fit++
			total += c.m.weight
		}
	}
	switch {
	case fit == 0:
		return nil, least
	case p == nil:
		x := rand.Uint64()
		a, b := atFit(r.list, d, low(x, total)), atFit(r.list, d, high(x, total))
		if a == nil || b == nil {
			return nil, flawStale // all became unfit since they were counted
		}
		return lighter(a, b), flawNone
	case fit == len(r.list):
		return r.list[bounded(p.Choose(r.list), fit)].m, flawNone
	}
	buffer := candidates.Get().(*[]Candidate)
	defer candidates.Put(buffer)
	some := (*buffer)[:0]
	for _, c := range r.list {
		if c.m.flawOf(d) == flawNone {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		return nil, flawStale
	}
	*buffer = some
	return some[bounded(p.Choose(some), len(some))].m, flawNone
}

// candidates are slices for policies, which may not keep them.
var candidates = sync.Pool{New: func() any { return new([]Candidate) }}

// bounded keeps a policy's answer inside of the list.
func bounded(i, n int) int {
	if i < 0 || i >= n {
		return 0
	}
	return i
}

// drawTwo draws twice by weight, with replacement: a node that is drawn twice is
// used however slow it looked, so that its average is renewed. One random
// number makes both draws.
func drawTwo(list []Candidate) (a, b *member) {
	total := 0
	for _, c := range list {
		total += c.m.weight
	}
	x := rand.Uint64()
	return at(list, low(x, total)), at(list, high(x, total))
}

// low and high make a number below n of one half of x.
func low(x uint64, n int) int  { return int(uint64(uint32(x)) * uint64(n) >> 32) }
func high(x uint64, n int) int { return int((x >> 32) * uint64(n) >> 32) }

// at returns the member into whose share of the total weight point falls.
func at(list []Candidate, point int) *member {
	for _, c := range list {
		if point -= c.m.weight; point < 0 {
			return c.m
		}
	}
	return list[len(list)-1].m
}

// atFit is at among the fit ones; the last of them if one was lost meanwhile.
func atFit(list []Candidate, d *demand, point int) (m *member) {
	for _, c := range list {
		if c.m.flawOf(d) != flawNone {
			continue
		}
		m = c.m
		if point -= m.weight; point < 0 {
			return m
		}
	}
	return m
}

// lighter is the one with the smaller expected wait, latency x (in flight + 1).
// Where a latency is not known yet, the in-flight count alone decides; on equal
// terms the first draw, and so the weights.
func lighter(a, b *member) *member {
	la, lb := a.latency.Load(), b.latency.Load()
	if la == 0 || lb == 0 {
		la, lb = 1, 1
	}
	if lb*(b.inFlight.Load()+1) < la*(a.inFlight.Load()+1) {
		return b
	}
	return a
}

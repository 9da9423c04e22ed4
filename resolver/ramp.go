package resolver

import (
	"math"
	"math/rand/v2"
)

// A node that was out of rotation has cold caches and no connections. It starts
// with a small share of the reads, which grows to all of its own within
// Config.SlowStart.

// firstShare is the part of its share that a node begins with.
const firstShare = 0.1

// startRamp begins the slow start of a node that has come back; one that comes
// for the first time has all of its share. The caller holds r.mu.
func (r *Resolver) startRamp(n *node) {
	if n.health.ejections > 0 && r.cfg.SlowStart > 0 && !n.isPrimary() {
		n.rampFrom = max(r.now(), 1)
	}
}

// ramp renews the share of a node. The caller holds r.mu.
func (r *Resolver) ramp(n *node) {
	if n.rampFrom == 0 {
		return
	}
	done := float64(r.now()-n.rampFrom) / float64(r.cfg.SlowStart)
	if done >= 1 {
		n.rampFrom = 0
		n.rest.Store(0)
		return
	}
	share := firstShare + (1-firstShare)*max(done, 0)
	n.rest.Store(uint32((1 - share) * math.MaxUint32))
}

// pick chooses a replica for a read, or returns nil and the smallest flaw found.
// While a node ramps up, a lot is drawn for the read: one that falls on its
// missing share leaves the node out, unless no other is fit.
func (r *rotation) pick(p Policy, d *demand) (*member, flaw) {
	if r.ramping {
		d.lot = rand.Uint32() | 1
		m, _ := r.pickAny(p, d)
		d.lot = 0
		if m != nil {
			return m, flawNone
		}
	}
	return r.pickAny(p, d)
}

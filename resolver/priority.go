package resolver

import (
	"cmp"
	"time"
)

// Priorities say how reads of each [Priority] are treated.
type Priorities struct {
	// Critical reads go to the primary, or, with MaxLag, to a replica within that
	// bound and to the primary when none is. They may use every connection.
	Critical Class
	// Normal reads go to a replica, and to the primary when none is fit, up to
	// Spill of them at once.
	Normal Class
	// Background reads go to replicas alone, unless Spill allows more, and use at
	// most half of a node's connections.
	Background Class
}

// Class says how the reads of one priority are treated.
type Class struct {
	// MaxLag is the bound in place of Config.MaxLag; of this and Group.MaxLag the
	// smaller one counts, and [MaxStaleness] above both. Default: for Critical the
	// primary, for the others that of the Config.
	MaxLag time.Duration
	// Spill is how many reads at once may be on the primary because no replica is
	// fit: all are out, lag, or have not come to a position that is needed. The
	// next waits, and fails with [ErrBusy]: that protects the primary when all
	// replicas fall. Reads that are there to see a write of their own do not count,
	// nor do those of a database without replicas. Default: for Critical no
	// bound, for Normal half of the primary's connections, for Background none.
	// Negative: none.
	Spill int
	// Wait is how long a read that may not spill waits for a replica to become
	// fit or for its turn on the primary, before it fails with [ErrNoReplica] or
	// [ErrBusy]. Default 1 s. Negative: not at all.
	Wait time.Duration
}

const (
	defaultWait = time.Second
	noSpill     = -1
)

func (p Priorities) withDefaults() Priorities {
	for _, c := range []*Class{&p.Critical, &p.Normal, &p.Background} {
		c.Wait = cmp.Or(c.Wait, defaultWait)
	}
	p.Background.Spill = cmp.Or(p.Background.Spill, noSpill)
	return p
}

func (r *Resolver) class(p Priority) *Class {
	switch p {
	case Critical:
		return &r.cfg.Priorities.Critical
	case Background:
		return &r.cfg.Priorities.Background
	}
	return &r.cfg.Priorities.Normal
}

package nplusone

import (
	"slices"
	"sync/atomic"
)

// The frames of a call site: the innermost ones of the user tell two sites of
// one helper apart, some more are kept for the report.
const (
	hashedFrames = 4
	keptFrames   = 8
)

// site is the place in the code that ran a statement.
type site struct {
	stack uint64    // hash of the whole stack
	hash  uint64    // of what tells one site from another
	pcs   []uintptr // the user's frames, innermost first, each once
}

// sites remembers what was made of a stack, so that a stack costs a hash. A
// program has few in constant use; a site that falls out is made again.
var sites [1 << 10]atomic.Pointer[site]

// siteOf makes a site of the stack pcs. plumbing tells the frames that are not
// the user's. Recursion does not make a site of each depth: a frame counts once.
func siteOf(pcs []uintptr, plumbing func(uintptr) bool) *site {
	h := uint64(len(pcs))
	for _, pc := range pcs {
		h = mix(h, uint64(pc))
	}
	slot := &sites[h%uint64(len(sites))]
	if s := slot.Load(); s != nil && s.stack == h {
		return s
	}
	s := &site{stack: h, hash: 1}
	for _, pc := range pcs {
		if plumbing(pc) || slices.Contains(s.pcs, pc) {
			continue
		}
		if len(s.pcs) < hashedFrames {
			s.hash = mix(s.hash, uint64(pc))
		}
		if s.pcs = append(s.pcs, pc); len(s.pcs) == keptFrames {
			break
		}
	}
	s.pcs = slices.Clip(s.pcs)
	slot.Store(s)
	return s
}

package nplusone

import (
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/gorminfra/infra/internal/hook"
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

// A frame costs about 20 ns to unwind. Six of the near ones are the hook layer's
// and GORM's for a plain query; for preloads, association mode and hooks that
// query the far ones are unwound, too.
const (
	nearFrames = 12
	farFrames  = 48
)

// siteHere is the site of the stack that calls it, without an allocation once
// it is known.
func siteHere() *site {
	var near [nearFrames]uintptr
	n := runtime.Callers(3, near[:])
	s := siteOf(near[:n], hook.Plumbing)
	if n == nearFrames && len(s.pcs) < hashedFrames {
		var far [farFrames]uintptr
		s = siteOf(far[:runtime.Callers(3, far[:])], hook.Plumbing)
	}
	return s
}

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

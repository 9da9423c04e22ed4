package resolver

// rules are those that tests switch off, to show that they would notice it.
type rules uint8

const (
	tokenRule     rules = 1 << iota // reads see what the session wrote, and what its token says
	pageRule                        // positions just behind a page's header are moved to its start
	monotonicRule                   // no read goes behind an earlier one
	lagRule                         // reads go to replicas within their bound
	outcomeRule                     // of a write that may have been sent the caller is told that its outcome is unknown
)

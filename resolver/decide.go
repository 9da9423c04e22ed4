package resolver

import "time"

// reason is why a statement went where it went. Its name is a metric's label and
// what Record.Reason says.
type reason uint8

const (
	reasonReplica     reason = iota // a replica that is fit
	reasonPreload                   // the node of the statement that it is a preload of
	reasonNamed                     // dbresolver.Use
	reasonHandle                    // the node that the handle was given
	reasonWrite                     // writes
	reasonPrimaryOnly               // changes nothing, but cannot run on a standby
	reasonAsked                     // Primary(ctx), Critical, dbresolver.Write
	reasonCacheFill                 // a cache's fill that no replica is known to be fresh enough for
	reasonTightBound                // a bound too tight to judge
	reasonTransaction               // a transaction that is not read-only
	reasonToken                     // a token that says nothing, or not of this primary's history
	reasonOwnWrite                  // no replica has the session's own write yet
	reasonSeen                      // no replica surely has what the session was shown
	reasonLag                       // all replicas are too stale
	reasonPosition                  // no replica has come to the WAL position that is needed
	reasonDown                      // all replicas are out of rotation
	reasonNoReplica                 // none is configured
	reasonRetry                     // a second attempt
	numReasons
)

var reasonNames = [numReasons]string{
	"replica", "preload", "named", "handle", "write", "needs_primary", "asked", "cache_fill", "tight_bound", "transaction",
	"token", "own_write", "earlier_read", "lag", "position", "down", "no_replica", "retry",
}

func (r reason) String() string { return reasonNames[r] }

// question is a statement as the decision sees it.
type question struct {
	now int64 // when it was asked, by the resolver's clock; 0: now

	toPrimary bool   // for the reason why
	why       reason // set with toPrimary

	wrote  int64 // the latest write that the session must see
	scoped bool  // the session is a scope's, and has written
	bound  time.Duration
	strict bool // the bound is the caller's own and is not frozen
	minLSN uint64
	fill   bool // minLSN is what the fill of a cache needs, and not what a token says

	session *session // to note the choice in; nil: none
	shown   glimpse  // what it was shown
	seen    int64    // the time that the state of other nodes than shown.on must be younger than

	// favourite is the node to use, if it is fit, for the reason favour. If it is
	// not, insist sends the statement to the primary and not to another replica.
	favourite *node
	favour    reason
	insist    bool

	exclude  *node // the node of a failed attempt
	group    *group
	priority Priority
}

// decide chooses the node. It neither blocks nor allocates, unless a Policy
// does. The second result is the reason; of several flaws of the replicas it
// names the mildest.
func (r *Resolver) decide(q *question) (*node, reason) {
	primary := r.primary()
	if q.toPrimary {
		return primary, q.why
	}
	rot, policy := r.rotation.Load(), r.cfg.Policy
	if g := q.group; g != nil {
		rot, policy = g.rotation.Load(), g.policy
	}
	if rot.configured == 0 && q.favourite == nil {
		return primary, reasonNoReplica
	}
	if q.bound < r.tightest {
		return primary, reasonTightBound
	}
	if q.favourite == primary {
		return primary, q.favour
	}
	d := demand{now: r.at(q), after: q.wrote, minLSN: q.minLSN}
	if q.exclude != nil {
		d.exclude = &q.exclude.member
	}
	if on := q.shown.on; on != nil && on.run.Load() == q.shown.run {
		d.stay = &on.member
	}
	d.seen = q.seen
	oldest := int64(0)
	if q.bound == AnyStaleness {
		d.any = !q.scoped
	} else {
		oldest = r.reference(d.now, q.strict) - int64(q.bound) - 1
	}
	if r.off&lagRule != 0 {
		oldest = 0
	}
	d.after = max(d.after, oldest)

	if f := q.favourite; f != nil {
		flaw := flawDown
		if f.usable.Load() && !f.draining.Load() {
			flaw = f.flawOf(&d)
		}
		switch {
		case flaw == flawNone:
			return f, q.favour
		case q.favour == reasonPreload:
			return primary, reasonPreload
		case q.insist:
			return primary, q.reasonOf(flaw, oldest)
		}
	}
	// Where a session was shown something of late no other node can be known to
	// have it. Nor should a first read's companions part from it.
	if m := d.stay; m != nil && d.now-q.shown.since < int64(r.tightest) && rot.has(m) && m.flawOf(&d) == flawNone {
		return m.node, reasonReplica
	}
	m, flaw := rot.pick(policy, &d)
	if m == nil {
		return primary, q.reasonOf(flaw, oldest)
	}
	return m.node, reasonReplica
}

// at is the time for which a question is answered.
func (r *Resolver) at(q *question) int64 {
	if q.now != 0 {
		return q.now
	}
	return r.now()
}

// reference is the time that staleness is measured from: now, or, while the
// primary does not answer and lag is frozen, its last answer.
func (r *Resolver) reference(now int64, strict bool) int64 {
	if !strict && r.cfg.WithoutPrimary == Freeze && r.primary().valid.Load() < now {
		return min(now, r.primary().fresh.Load())
	}
	return now
}

func (q *question) reasonOf(f flaw, oldest int64) reason {
	switch f {
	case flawSeen:
		return reasonSeen
	case flawLSN:
		if q.fill {
			return reasonCacheFill
		}
		return reasonPosition
	case flawStale:
		if q.wrote > oldest {
			return reasonOwnWrite
		}
		return reasonLag
	}
	return reasonDown
}

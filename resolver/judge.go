package resolver

import (
	"context"
	"log/slog"
	"time"
)

// This file turns the answers of probes, and what statements met, into the
// verdicts that decisions read.

// change is a change of a node's state, to be logged without the lock.
type change struct {
	node  *node
	level slog.Level
	what  string
	attrs []any
}

// took takes in the answer rd to a probe of n that was sent at sent.
func (r *Resolver) took(n *node, id identity, rd reading, sent int64) {
	var changes []change
	if r.off&pageRule == 0 {
		rd.lsn = id.units.normalize(rd.lsn)
	}
	r.mu.Lock()
	n.answered, n.lastErr = true, ""
	if id != n.identity {
		n.run.Add(1)
		n.boot.Store(id.boot)
	}
	n.identity, n.last, n.lastHeard = id, rd, r.now()
	n.gone, n.misses = false, 0
	n.doubted.Store(false)
	if n.health.good(sent) {
		n.latency.Store(0) // what it was before says nothing of now
		r.startRamp(n)
	}
	r.ramp(n)
	if rd.placed && !rd.standby && r.elects(n) {
		changes = r.promote(n, changes)
	}
	if n.isPrimary() {
		r.judgePrimary(n, rd, sent)
	}
	for _, m := range r.nodes() {
		if m == n || n.isPrimary() {
			r.judge(m)
			changes = r.tell(m, changes)
		}
	}
	if n.health.in && (n.misfit == fits || !n.isPrimary()) {
		n.valid.Store(sent + r.expiry)
	}
	r.publish()
	r.mu.Unlock()
	r.dropSuperseded()
	r.log(changes)
}

// judgePrimary adds a sample of the primary to the timeline.
func (r *Resolver) judgePrimary(n *node, rd reading, sent int64) {
	if !rd.placed || rd.standby {
		return
	}
	if rd.timeline != r.timelineID {
		// LSNs of two timelines do not compare.
		r.line.reset()
		r.timelineID = rd.timeline
	}
	if here := (lineage{n.identity.system, rd.timeline}); r.lineage.Load() == nil || *r.lineage.Load() != here {
		r.lineage.Store(&here)
	}
	r.line.add(sample{sent: sent, lsn: rd.lsn})
	n.fresh.Store(sent)
	n.replayed.Store(rd.lsn)
	n.heardAsPrimary = sent
}

// judge says whether n fits into the cluster and how fresh it is.
func (r *Resolver) judge(n *node) {
	if !n.answered {
		return
	}
	n.misfit = r.misfitOf(n)
	if n.isPrimary() || !n.last.placed {
		return
	}
	fresh, ok := r.line.replayed(n.last.lsn)
	if !ok || n.misfit != fits {
		fresh = 0
	}
	// A restarted standby can have replayed less than before: the position goes
	// down first, and up last.
	if fresh < n.fresh.Load() {
		n.fresh.Store(fresh)
	}
	n.replayed.Store(n.last.lsn)
	n.fresh.Store(fresh)
}

// tell adds what n has become, if that is not what was said of it last.
func (r *Resolver) tell(n *node, changes []change) []change {
	switch {
	case !n.health.in, n.told && n.toldMisfit == n.misfit:
		return changes
	case n.misfit != fits:
		changes = append(changes, change{n, slog.LevelWarn, "node is not used", []any{"why", n.misfitText()}})
	case !n.isPrimary() && n.last.placed && !r.primary().answered:
		return changes // whether it belongs to the primary is not known yet
	default:
		changes = append(changes, change{n, slog.LevelInfo, "node is in rotation", nil})
	}
	n.told, n.toldMisfit = true, n.misfit
	return changes
}

func (r *Resolver) misfitOf(n *node) misfit {
	p := r.primary()
	switch {
	case !n.last.placed:
		return fits
	case n.last.standby == n.isPrimary():
		return wrongRole
	case n.isPrimary():
		return fits
	case p.identity.system != 0 && n.identity.system != 0 && p.identity.system != n.identity.system:
		return wrongSystem
	case differ(p.identity.database, n.identity.database):
		return wrongDatabase
	case n.last.timeline != 0 && r.timelineID != 0 && n.last.timeline != r.timelineID:
		// Above ours it follows a primary that we do not know, below it may still
		// follow one that was superseded.
		return wrongTimeline
	}
	// A standby cannot have replayed what the primary, asked later, had not
	// written yet: such a one follows another history.
	if s, ok := r.line.last(); ok && s.sent > n.lastHeard && n.last.lsn > s.lsn {
		return wrongTimeline
	}
	return fits
}

// missed takes in a probe of n that failed.
func (r *Resolver) missed(n *node, f failure, err error) {
	n.probeErrors.Add(1)
	r.suspect(n, f, err, true)
}

// suspect takes in evidence against n.
func (r *Resolver) suspect(n *node, f failure, err error, probe bool) {
	var changes []change
	now := r.now()
	r.mu.Lock()
	first := probe && !n.answered
	if probe {
		n.answered = true
		n.lastErr = textOf(err)
		if n.gone = turnedAway(f, err); n.gone || !answers(err) {
			n.misses++
		}
	}
	if f == refused {
		n.run.Add(1)
	}
	ejected := n.health.bad(f, now)
	if ejected {
		n.told = false
	}
	if ejected || first {
		n.lastErr = textOf(err)
		changes = append(changes, change{n, slog.LevelWarn, "node is out of rotation", []any{"why", whyOf(f, err), "error", n.lastErr}})
	}
	if f == timedOut {
		n.doubted.Store(true)
	}
	if n.isPrimary() {
		n.health.hasten()
	}
	if !n.health.in {
		n.valid.Store(0)
		n.rampFrom = 0
		n.rest.Store(0)
	}
	if ejected || probe {
		r.publish()
	}
	silent := f == timedOut && !n.health.in && !n.isPrimary()
	r.mu.Unlock()
	switch {
	case n.isPrimary():
		r.alarm()
	case ejected:
		n.wake()
	}
	if silent {
		// Whoever waits for an answer would do so until its context ends.
		n.sockets.cut()
	}
	r.log(changes)
}

// publish makes the snapshot that decisions read, and wakes those who wait for
// a probe.
func (r *Resolver) publish() {
	p := r.primary()
	r.vacant.Store(r.vacancy() != "")
	changed, ramping := r.following != p, false
	r.following = p
	for _, n := range r.nodes() {
		if usable := n.health.in && n.misfit == fits; usable != n.usable.Load() {
			n.usable.Store(usable)
			changed = true
		}
		ramping = ramping || n.rampFrom > 0 && n.usable.Load()
		n.sockets.set(n != p && n.answered && !n.health.in)
	}
	if changed || ramping != r.ramping {
		r.ramping = ramping
		r.rebuild()
	}
	close(r.probed)
	r.probed = make(chan struct{})
}

// rebuild makes the rotations anew. The caller holds r.mu.
func (r *Resolver) rebuild() {
	next := &rotation{}
	of := make(map[*group]*rotation, len(r.groups.list))
	for _, g := range r.groups.list {
		of[g] = &rotation{}
	}
	for _, n := range r.nodes() {
		if n.isPrimary() || n.weight <= 0 || n.draining.Load() {
			continue
		}
		if !n.grouped {
			next.add(n)
		}
		for _, g := range n.groups {
			of[g].add(n)
		}
	}
	for g, rot := range of {
		g.rotation.Store(rot)
	}
	r.rotation.Store(next)
}

func (r *rotation) add(n *node) {
	r.configured++
	if n.usable.Load() {
		r.list = append(r.list, Candidate{&n.member})
		r.ramping = r.ramping || n.rampFrom > 0
	}
}

func (r *Resolver) log(changes []change) {
	for _, c := range changes {
		attrs := append([]any{"db", r.cfg.Name, "node", c.node.name}, c.attrs...)
		r.cfg.Logger.Log(context.Background(), c.level, "resolver: "+c.what, attrs...)
	}
}

// staleness of n at now, false when it is not known. The caller holds r.mu.
func (r *Resolver) staleness(n *node, now int64) (time.Duration, bool) {
	if n.isPrimary() {
		return 0, true
	}
	fresh := n.fresh.Load()
	if fresh == 0 {
		return 0, false
	}
	return time.Duration(max(now-fresh, 0)), true
}

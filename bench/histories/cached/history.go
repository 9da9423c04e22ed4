package cached

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/gorminfra/infra/bench/histories/run"
)

// history is all that a run left behind.
type history struct {
	ops       []op // in the order of their starts
	instances map[uint8]instance
	ttl       int64 // of every entry
	maxLag    int64 // of replicas
	// restored are the times in which Redis came back with older data, from the
	// loss to what the contract allows after the return. Answers of the cache
	// that came from it then are not judged; see exempt.
	restored  []run.Span
	failovers int      // of Redis
	unasked   int      // of these, by no fault
	noProof   []string // why the run shows nothing, whatever was read
}

// instance is one life of a worker, as far as the contract is another for it.
type instance struct {
	lease     int64 // 0: each hit asks Redis
	failWrite bool  // a write of which Redis cannot be told fails
	scoped    bool  // work is in scopes; otherwise the instance is one session
}

// exempt reports whether the contract does not bind an answer of the cache: the read
// had not ended when Redis lost what it knew, and began before the time was over in
// which that may show. One that began before the loss may have asked after it, as its
// first question was lost with the server, or the reader's process stood still.
func (h *history) exempt(o *op) bool {
	return o.From.cached() && slices.ContainsFunc(h.restored, func(s run.Span) bool { return s.From <= o.End && o.Start <= s.To })
}

// version is one state that a row has had.
type version struct {
	writer uint32
	grp    int8
	commit int64 // from when on it can have been seen
}

// ack says that from a time on everybody could know of all versions up to one.
type ack struct {
	at      int64
	version uint32 // the highest up to here
	by      *op
}

type acks []ack

func (a acks) settle() {
	slices.SortStableFunc(a, func(a, b ack) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(a); i++ {
		if a[i-1].version > a[i].version {
			a[i].version, a[i].by = a[i-1].version, a[i-1].by
		}
	}
}

// by returns the latest version that was acknowledged at a time.
func (a acks) by(t int64) (uint32, *op) {
	i := sort.Search(len(a), func(i int) bool { return a[i].at > t })
	if i == 0 {
		return 0, nil
	}
	return a[i-1].version, a[i-1].by
}

// row is what happened to one row.
type row struct {
	versions map[uint32]version
	last     uint32
	all      acks           // all that was acknowledged
	told     acks           // of these what Redis was told of for certain
	own      map[uint8]acks // by instance
	// shown are the versions of writers that never learned their outcome, from
	// when somebody saw them.
	shown map[uint32]ack
}

// index is a history in the order of its rows.
type index struct {
	writes map[uint32]*op
	rows   [rows]row
	// members are the items that have ever been in each group, or deleted.
	members map[int8][]uint16
	// open is when the first write began whose outcome nobody ever saw.
	open  int64
	twice []ack // versions that two writes were told they had made
}

func (h *history) index() *index {
	x := &index{writes: map[uint32]*op{}, open: math.MaxInt64}
	for i := range x.rows {
		r := &x.rows[i]
		r.versions = map[uint32]version{0: {grp: firstGroup(uint16(i))}}
		r.own, r.shown = map[uint8]acks{}, map[uint32]ack{}
	}
	for i := range h.ops {
		o := &h.ops[i]
		switch {
		case o.Kind == kindBegun || o.Kind.writes(), o.Kind == kindCommitting:
			// What was logged last says most.
			if w := x.writes[o.ID]; w == nil || o.Kind > w.Kind {
				x.writes[o.ID] = o
			}
		}
	}
	for _, w := range x.writes {
		x.addWrite(h, w)
	}
	for i := range h.ops {
		if o := &h.ops[i]; o.Kind.reads() && o.Status == done {
			x.addShown(o)
		}
	}
	x.members = map[int8][]uint16{}
	for i := range x.rows {
		x.rows[i].finish(x, h)
		if i < items {
			x.enlist(uint16(i))
		}
	}
	for _, w := range x.writes {
		if x.isOpen(w) {
			x.open = min(x.open, w.Start)
		}
	}
	return x
}

// outcome of a write, of which its process may not have lived to see the end.
func outcome(w *op) status {
	switch w.Kind {
	case kindBegun:
		return failed
	case kindCommitting:
		return unknown
	}
	return w.Status
}

// addWrite takes in what a writer was told it had made.
func (x *index) addWrite(h *history, w *op) {
	if outcome(w) != done || w.Kind == kindRollback {
		return
	}
	told := !w.has(untold) || h.instances[w.Inst].failWrite
	for _, c := range w.Cells {
		r := &x.rows[c.Row]
		if _, taken := r.versions[c.Version]; taken {
			x.twice = append(x.twice, ack{version: c.Version, by: w})
		}
		r.versions[c.Version] = version{c.Writer, c.Grp, w.Commit}
		a := ack{w.End, c.Version, w}
		r.all = append(r.all, a)
		r.own[w.Inst] = append(r.own[w.Inst], a)
		if told {
			r.told = append(r.told, a)
		}
	}
}

// addShown takes in versions whose writers never learned their outcome.
func (x *index) addShown(o *op) {
	for _, c := range o.Cells {
		w := x.writes[writeOf(c.Writer)]
		if w == nil || outcome(w) != unknown {
			continue
		}
		r := &x.rows[c.Row]
		if v, ok := r.versions[c.Version]; ok && v.writer != c.Writer {
			continue // it is judged as a read
		}
		r.versions[c.Version] = version{c.Writer, c.Grp, w.Start}
		if s, ok := r.shown[c.Version]; !ok || o.End < s.at {
			r.shown[c.Version] = ack{o.End, c.Version, o}
		}
	}
}

// grace is for commits that a standby shows before the primary does.
const grace = int64(100e6)

func (r *row) finish(x *index, h *history) {
	for v := range r.versions {
		r.last = max(r.last, v)
	}
	for v, a := range r.shown {
		w := x.writes[writeOf(r.versions[v].writer)]
		a.at += grace
		r.all = append(r.all, a)
		if !w.has(untold) || h.instances[w.Inst].failWrite {
			r.told = append(r.told, a)
		}
	}
	r.all.settle()
	r.told.settle()
	for _, own := range r.own {
		own.settle()
	}
}

// enlist notes in which groups an item has been.
func (x *index) enlist(number uint16) {
	seen := map[int8]bool{}
	for _, v := range x.rows[number].versions {
		if !seen[v.grp] {
			seen[v.grp] = true
			x.members[v.grp] = append(x.members[v.grp], number)
		}
	}
}

// isOpen reports whether nobody ever saw whether the write happened.
func (x *index) isOpen(w *op) bool {
	if outcome(w) != unknown {
		return false
	}
	for i := range x.rows {
		for _, v := range x.rows[i].versions {
			if writeOf(v.writer) == w.ID {
				return false
			}
		}
	}
	return true
}

// untold reports whether Redis may not have been told of a version, which another
// instance wrote: others may be served what is from before it, also when somebody
// has seen it in the database.
func (x *index) untold(number uint16, v uint32, inst uint8) bool {
	w := x.writes[writeOf(x.rows[number].versions[v].writer)]
	return w != nil && w.has(untold) && w.Inst != inst
}

// absentAs returns the earliest version from least on as which a row was absent
// in o's answer.
func (x *index) absentAs(o *op, number uint16, least uint32) (v uint32, ok bool) {
	r := &x.rows[number]
	for v = least; v <= r.last; v++ {
		state, known := r.versions[v]
		if !known || o.elsewhere(state.grp) && state.commit <= o.End {
			return v, true
		}
	}
	return v, x.open <= o.End
}

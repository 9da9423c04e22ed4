package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/gorminfra/infra/bench/histories/run"
)

// history is all that a run left behind.
type history struct {
	ops     []op
	journal []Entry // of the last primary, after the end
	// absences are the times in which there was no primary, or not everybody
	// knew of the new one. Lag is judged as at their begin.
	absences []run.Span
	killed   map[uint16]int64  // when workers were
	reasons  map[string]uint64 // of the plugin's decisions
	refusals map[string]int    // the errors of operations, by kind and text
	noProof  []string          // why the run shows nothing, whatever was read
}

// committing is how long the server may go on with a commit whose process is dead.
const committing = int64(1e9)

// finished leaves of a worker's log one operation for each write: what was logged
// last, or that it began, when its process was killed meanwhile. That it happened
// is as possible then as that it did not.
func (h *history) finished(ops []op) []op {
	ended := map[uint64]bool{}
	for i := range ops {
		if o := &ops[i]; o.Kind != kindInside && o.ID != 0 && !o.has(begun) {
			ended[o.ID] = true
		}
	}
	ops = slices.DeleteFunc(ops, func(o op) bool { return o.has(begun) && ended[o.ID] })
	for i := range ops {
		if o := &ops[i]; o.has(begun) {
			o.End = max(o.End, h.killed[o.Worker]+committing)
		}
	}
	return ops
}

// The rules that a history can break.
const (
	ruleOwnWrites  = "read-your-writes"
	ruleMonotonic  = "monotonic reads"
	ruleStaleness  = "staleness bound"
	rulePrimary    = "reads of the primary are current"
	ruleLost       = "no acknowledged write is lost"
	ruleDoubled    = "no write happens twice"
	ruleUnwanted   = "what failed or was rolled back did not happen"
	ruleContent    = "reads show what was committed"
	ruleTransition = "a transaction reads its own writes"
	rulePages      = "a token at a page boundary is served"
)

var rules = []string{
	ruleOwnWrites, ruleMonotonic, ruleStaleness, rulePrimary, ruleLost, ruleDoubled, ruleUnwanted, ruleContent, ruleTransition, rulePages,
}

// violation is one broken rule with the operations that show it.
type violation struct {
	rule string
	what string
	ops  []*op
}

// length is the time that a violation takes to tell; the shortest is the
// easiest to understand.
func (v *violation) length() int64 {
	from, to := int64(math.MaxInt64), int64(0)
	for _, o := range v.ops {
		from, to = min(from, o.Start), max(to, o.End)
	}
	return to - from
}

// check finds all violations in a history, the shortest of each rule first.
//
// It needs no search for an order of the operations, as a checker of
// linearizability does: the database numbers the versions of each row, and the
// journal tells which write made which. early is as in checker.
func check(h *history) (found []violation, early int) {
	c := &checker{h: h}
	c.index()
	c.checkWrites()
	c.checkReads()
	c.checkSessions()
	slices.SortStableFunc(c.found, func(a, b violation) int {
		return cmp.Or(cmp.Compare(slices.Index(rules, a.rule), slices.Index(rules, b.rule)), cmp.Compare(a.length(), b.length()))
	})
	return c.found, c.early
}

type checker struct {
	h      *history
	writes map[uint64]*op
	made   map[uint64][]Entry // journal, by write
	cells  map[uint32]*row
	found  []violation
	// early counts reads of the primary that missed a commit still under way,
	// which a standby had already shown to their session: a backend writes its
	// commit record, and whoever replays it shows it, before the backend leaves
	// the list of running transactions on the primary. No routing prevents that
	// but staying on the standby; nobody had been told of the commit yet.
	early int
}

// row is what happened to one cell.
type row struct {
	writer map[int64]uint64 // by version, from the journal
	acked  []ack            // by time
}

// ack says that from a time on all versions up to one were acknowledged.
type ack struct {
	end     int64
	version int64 // the highest up to here
	by      *op
}

func (c *checker) violate(rule string, ops []*op, format string, args ...any) {
	ops = slices.DeleteFunc(ops, func(o *op) bool { return o == nil })
	c.found = append(c.found, violation{rule, fmt.Sprintf(format, args...), ops})
}

func (c *checker) row(cell uint32) *row {
	r := c.cells[cell]
	if r == nil {
		r = &row{writer: map[int64]uint64{0: 0}}
		c.cells[cell] = r
	}
	return r
}

func (c *checker) index() {
	c.writes, c.made, c.cells = map[uint64]*op{}, map[uint64][]Entry{}, map[uint32]*row{}
	for _, e := range c.h.journal {
		c.made[uint64(e.Writer)] = append(c.made[uint64(e.Writer)], e)
		r := c.row(e.Cell)
		if other, taken := r.writer[e.Version]; taken {
			c.violate(ruleLost, nil, "cell %d has two versions %d, by the writes %x and %x", e.Cell, e.Version, other, e.Writer)
		}
		r.writer[e.Version] = uint64(e.Writer)
	}
	for i := range c.h.ops {
		o := &c.h.ops[i]
		if !o.Kind.writes() && o.Kind != kindRollback {
			continue
		}
		c.writes[o.ID] = o
		if o.Kind.writes() && o.Status == done {
			r := c.row(o.Cell)
			r.acked = append(r.acked, ack{o.End, o.Version, o})
		}
	}
	for _, r := range c.cells {
		slices.SortFunc(r.acked, func(a, b ack) int { return cmp.Compare(a.end, b.end) })
		for i := 1; i < len(r.acked); i++ {
			if before := r.acked[i-1]; before.version > r.acked[i].version {
				r.acked[i].version, r.acked[i].by = before.version, before.by
			}
		}
	}
}

// ackedBefore returns the latest version of which the acknowledgement had come
// at a time.
func (r *row) ackedBefore(t int64) (int64, *op) {
	i := sort.Search(len(r.acked), func(i int) bool { return r.acked[i].end > t })
	if i == 0 {
		return 0, nil
	}
	return r.acked[i-1].version, r.acked[i-1].by
}

// checkWrites holds what writers were told against what is there.
func (c *checker) checkWrites() {
	for id, o := range c.writes {
		made := c.made[id]
		switch {
		case len(made) > 1:
			c.violate(ruleDoubled, []*op{o}, "the journal has it %d times", len(made))
		case o.Kind == kindRollback || o.Status == failed:
			if len(made) > 0 {
				c.violate(ruleUnwanted, []*op{o}, "the journal has it, as version %d", made[0].Version)
			}
		case o.Status == done && len(made) == 0:
			c.violate(ruleLost, []*op{o}, "the journal does not have it")
		case o.Status == done && (made[0].Version != o.Version || made[0].Cell != o.Cell):
			c.violate(ruleLost, []*op{o}, "the journal has it as version %d of cell %d", made[0].Version, made[0].Cell)
		}
	}
	for id, made := range c.made {
		if c.writes[id] == nil {
			c.violate(ruleUnwanted, nil, "the journal has write %x, which nobody made (cell %d version %d)", id, made[0].Cell, made[0].Version)
		}
	}
	for cell, r := range c.cells {
		for v := int64(1); v < int64(len(r.writer)); v++ {
			if _, ok := r.writer[v]; !ok {
				c.violate(ruleLost, nil, "cell %d has later versions, but no version %d", cell, v)
			}
		}
	}
}

// checkReads holds each read against the writes of everybody.
func (c *checker) checkReads() {
	for i := range c.h.ops {
		o := &c.h.ops[i]
		if o.Kind == kindPage && o.has(boundary) && o.has(starved) {
			c.violate(rulePages, []*op{o}, "no replica came to serve it, with the primary idle")
		}
		if o.Status != done {
			continue
		}
		if o.Kind == kindInside {
			if o.Writer != o.ID {
				c.violate(ruleTransition, []*op{o}, "it saw write %x", o.Writer)
			}
			continue
		}
		if !o.Kind.reads() {
			continue
		}
		r := c.row(o.Cell)
		if writer, ok := r.writer[o.Version]; !ok || writer != o.Writer {
			c.violate(ruleContent, []*op{o}, "version %d is write %x's", o.Version, writer)
			continue
		}
		if !o.has(standby) {
			if version, by := r.ackedBefore(o.Start); version > o.Version {
				c.violate(rulePrimary, []*op{by, o}, "version %d had been acknowledged", version)
			}
		} else if o.Bound > 0 {
			limit := c.known(o) - o.Bound - 1
			if version, by := r.ackedBefore(limit); version > o.Version {
				c.violate(ruleStaleness, []*op{by, o}, "version %d had been acknowledged %.0f ms before, and %.0f ms are allowed",
					version, seconds(o.Start-by.End)*1e3, seconds(o.Bound)*1e3)
			}
		}
	}
}

// known is the time from which the lag of what o read counts.
func (c *checker) known(o *op) int64 {
	for _, a := range c.h.absences {
		if a.From <= o.Start && o.Start <= a.To {
			return a.From
		}
	}
	return o.Start
}

// need is what a session must see, and why.
type need struct {
	version int64
	by      *op // the session's own write, or its read
}

// chain is what a session has done and seen up to some time.
type chain struct {
	wrote, saw map[uint32]need
	// Whoever saw a write sees all that had been acknowledged before it began,
	// because replicas replay in one order.
	since   int64
	sinceBy *op
}

// checkSessions sweeps over time: what had ended before a read began binds it.
func (c *checker) checkSessions() {
	var starts, ends []*op
	for i := range c.h.ops {
		o := &c.h.ops[i]
		if o.Status != done || !o.Kind.reads() && !o.Kind.writes() {
			continue
		}
		ends = append(ends, o)
		if o.Kind.reads() {
			starts = append(starts, o)
		}
	}
	slices.SortFunc(starts, func(a, b *op) int { return cmp.Compare(a.Start, b.Start) })
	slices.SortFunc(ends, func(a, b *op) int { return cmp.Compare(a.End, b.End) })

	chains := map[uint64]*chain{}
	processes := map[uint16]*chain{}
	next := 0
	for _, o := range starts {
		for ; next < len(ends) && ends[next].End <= o.Start; next++ {
			e := ends[next]
			if e.Kind.writes() {
				c.bind(of(processes, e.Worker), e)
			}
			// Readers without a scope are strangers to each other.
			if !e.has(scopeless) {
				c.bind(of(chains, e.Session), e)
			}
		}
		if o.has(scopeless) {
			c.holdTo(of(processes, o.Worker), o)
		} else {
			c.holdTo(of(chains, o.Session), o)
		}
	}
}

func of[K comparable](m map[K]*chain, key K) *chain {
	ch := m[key]
	if ch == nil {
		ch = &chain{wrote: map[uint32]need{}, saw: map[uint32]need{}}
		m[key] = ch
	}
	return ch
}

func (c *checker) bind(ch *chain, o *op) {
	into, id := ch.saw, o.Writer
	if o.Kind.writes() {
		into, id = ch.wrote, o.ID
	}
	if n, ok := into[o.Cell]; !ok || o.Version > n.version {
		into[o.Cell] = need{o.Version, o}
	}
	if w := c.writes[id]; w != nil && w.Start > ch.since {
		ch.since, ch.sinceBy = w.Start, o
	}
}

func (c *checker) holdTo(ch *chain, o *op) {
	if n := ch.wrote[o.Cell]; n.version > o.Version {
		c.violate(ruleOwnWrites, []*op{n.by, o}, "the session had written version %d", n.version)
		return
	}
	if n := ch.saw[o.Cell]; n.version > o.Version {
		w := c.writes[c.row(o.Cell).writer[n.version]]
		if w != nil && w.End > o.Start && !o.has(standby) {
			c.early++
			return
		}
		c.violate(ruleMonotonic, []*op{w, n.by, o}, "the session had seen version %d", n.version)
		return
	}
	version, by := c.row(o.Cell).ackedBefore(ch.since)
	if version <= o.Version {
		return
	}
	rule := ruleMonotonic
	if ch.sinceBy.Kind.writes() {
		rule = ruleOwnWrites
	}
	c.violate(rule, []*op{by, ch.sinceBy, o}, "the session had a later write of another cell, and so version %d of this one", version)
}

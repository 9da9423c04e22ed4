package cached

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// The rules that a history can break.
const (
	ruleOwn         = "the writing instance sees its writes at once"
	ruleLease       = "others see them within the lease"
	ruleTTL         = "nothing outlives its TTL"
	ruleMonotonic   = "an instance's cached answers never go back"
	ruleSession     = "a session never goes back"
	ruleUncommitted = "nothing uncommitted or rolled back is seen"
	ruleContent     = "reads show what was written"
	ruleInside      = "a transaction reads its own writes"
	ruleLost        = "no write is lost"
	ruleDatabase    = "answers past the cache are as fresh as routing promises"
)

var rules = []string{
	ruleOwn, ruleLease, ruleTTL, ruleMonotonic, ruleSession, ruleUncommitted, ruleContent, ruleInside, ruleLost, ruleDatabase,
}

// violation is one broken rule with the operations that show it.
type violation struct {
	rule string
	what string
	ops  []*op
	row  uint16 // that it is about, or rows
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
func check(h *history) []violation {
	c := &checker{h: h, x: h.index()}
	c.checkWrites()
	for i := range h.ops {
		o := &h.ops[i]
		if o.Status != done {
			continue
		}
		switch {
		case o.Kind == kindInside:
			if o.Cells[0].Writer != o.ID {
				c.violate(ruleInside, o.Query, []*op{o}, "it saw %s, and not what %x wrote", o.Cells[0], o.ID)
			}
		case o.Kind.reads() && c.checkContent(o):
			c.checkFreshness(o)
		}
	}
	c.checkOrder()
	slices.SortStableFunc(c.found, func(a, b violation) int {
		return cmp.Or(cmp.Compare(slices.Index(rules, a.rule), slices.Index(rules, b.rule)), cmp.Compare(a.length(), b.length()))
	})
	return c.found
}

type checker struct {
	h     *history
	x     *index
	found []violation
}

func (c *checker) violate(rule string, row uint16, ops []*op, format string, args ...any) {
	ops = slices.DeleteFunc(ops, func(o *op) bool { return o == nil })
	c.found = append(c.found, violation{rule, fmt.Sprintf(format, args...), ops, row})
}

func (c *checker) checkWrites() {
	for _, a := range c.x.twice {
		c.violate(ruleLost, rows, []*op{a.by}, "another write was told that it made this version too")
	}
}

// checkContent holds what a read saw against what was written. It reports
// whether all of it was.
func (c *checker) checkContent(o *op) bool {
	good := true
	bad := func(rule string, w *op, seen cell, why string) {
		good = false
		c.violate(rule, seen.Row, []*op{w, o}, "%s: %s", seen, why)
	}
	for _, seen := range o.Cells {
		if seen.Version == 0 {
			if seen.Writer != 0 || seen.Grp != firstGroup(seen.Row) {
				bad(ruleContent, nil, seen, "that is not the row's first state")
			}
			continue
		}
		w := c.x.writes[writeOf(seen.Writer)]
		state := c.x.rows[seen.Row].versions[seen.Version]
		switch {
		case w == nil:
			bad(ruleContent, nil, seen, "nobody wrote it")
		case w.Kind == kindRollback || outcome(w) == failed:
			bad(ruleUncommitted, w, seen, "it was rolled back")
		case outcome(w) == done && !slices.ContainsFunc(w.Cells, func(c cell) bool { return c.Row == seen.Row && c.Writer == seen.Writer }):
			bad(ruleUncommitted, w, seen, "it was rolled back to a savepoint")
		case state.writer != seen.Writer || state.grp != seen.Grp:
			bad(ruleContent, w, seen, fmt.Sprintf("this version is by %x in group %d", state.writer, state.grp))
		case state.commit > o.End:
			bad(ruleUncommitted, w, seen, "it was not yet to be committed")
		}
	}
	return good
}

// checkFreshness holds a read against what was acknowledged before it began.
func (c *checker) checkFreshness(o *op) {
	if c.h.exempt(o) {
		return
	}
	for _, seen := range o.Cells {
		if !c.fresh(o, seen.Row, func(need uint32) bool { return seen.Version >= need }) {
			return
		}
	}
	c.eachAbsent(o, func(row uint16) bool {
		return c.fresh(o, row, func(need uint32) bool {
			_, ok := c.x.absentAs(o, row, need)
			return ok
		})
	})
}

// eachAbsent calls f with the rows that the answer says were not there, until f
// is false.
func (c *checker) eachAbsent(o *op, f func(row uint16) bool) {
	if o.Kind == kindKey {
		if len(o.Cells) == 0 {
			f(o.Query)
		}
		return
	}
	if o.Kind == kindProbe {
		for row := range uint16(items) {
			if o.absent(row) && !f(row) {
				return
			}
		}
		return
	}
	// What was never in the group cannot have been missed.
	for _, row := range c.x.members[groupOf(o.Query)] {
		if o.absent(row) && !f(row) {
			return
		}
	}
}

// fresh reports whether what o saw of a row is as new as it must be, and
// otherwise notes the violation.
func (c *checker) fresh(o *op, row uint16, has func(need uint32) bool) bool {
	r := &c.x.rows[row]
	inst := c.h.instances[o.Inst]
	hold := func(rule string, a acks, until int64, allowed string) bool {
		need, by := a.by(until)
		if need == 0 || has(need) {
			return true
		}
		c.violate(rule, row, []*op{by, o}, "%s v%d was known %.1f ms before the read, %s", rowName(row), need, seconds(o.Start-by.End)*1e3, allowed)
		return false
	}
	switch {
	case o.From.cached():
		return hold(ruleOwn, r.own[o.Inst], o.Start, "on the same instance") &&
			hold(ruleLease, r.told, o.Start-inst.lease, fmt.Sprintf("and the lease is %.0f ms", seconds(inst.lease)*1e3)) &&
			hold(ruleTTL, r.all, o.Start-c.h.ttl-c.h.maxLag, fmt.Sprintf("and the TTL is %.0f ms", seconds(c.h.ttl)*1e3))
	case !o.has(standby):
		return hold(ruleDatabase, r.all, o.Start, "on the primary")
	}
	if !inst.scoped && !hold(ruleOwn, r.own[o.Inst], o.Start, "on the same instance, from a replica") {
		return false
	}
	return hold(ruleDatabase, r.all, o.Start-c.h.maxLag-1, fmt.Sprintf("and %.0f ms of lag are allowed", seconds(c.h.maxLag)*1e3))
}

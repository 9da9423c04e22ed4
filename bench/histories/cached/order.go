package cached

import (
	"cmp"
	"slices"
)

// need is what must be seen at least of a row, and why.
type need struct {
	version uint32
	by      *op
}

// A chain of reads that must not go back: the cached answers to one query on one
// instance, or everything in one session.
type chainKey struct {
	session uint32
	query   uint16
	inst    uint8
	row     uint16
}

func (o *op) answers(row uint16) chainKey {
	return chainKey{query: o.Query, inst: o.Inst, row: row}
}

func (o *op) inSession(row uint16) chainKey {
	return chainKey{session: o.Session, row: row}
}

// checkOrder sweeps over time: what had ended before a read began binds it.
func (c *checker) checkOrder() {
	var starts, ends []*op
	for i := range c.h.ops {
		o := &c.h.ops[i]
		if o.Status != done {
			continue
		}
		switch {
		case o.Kind.cacheable():
			starts, ends = append(starts, o), append(ends, o)
		case o.Kind == kindWrite || o.Kind == kindCommit:
			ends = append(ends, o)
		}
	}
	slices.SortStableFunc(ends, func(a, b *op) int { return cmp.Compare(a.End, b.End) })
	needs := map[chainKey]need{}
	next := 0
	for _, o := range starts {
		for ; next < len(ends) && ends[next].End <= o.Start; next++ {
			c.bind(needs, ends[next])
		}
		if !c.h.exempt(o) {
			c.holdTo(needs, o)
		}
	}
}

// bind notes what an operation has shown.
func (c *checker) bind(needs map[chainKey]need, o *op) {
	note := func(key chainKey, v uint32) {
		if n := needs[key]; v > n.version {
			needs[key] = need{v, o}
		}
	}
	for _, seen := range o.Cells {
		if o.From.cached() {
			note(o.answers(seen.Row), seen.Version)
		}
		if o.Session != 0 {
			note(o.inSession(seen.Row), seen.Version)
		}
	}
	if o.Kind.writes() {
		return
	}
	c.eachAbsent(o, func(row uint16) bool {
		for _, key := range []chainKey{o.answers(row), o.inSession(row)} {
			if key.session == 0 && !o.From.cached() || key.session == 0 && key == o.inSession(row) {
				continue
			}
			if v, ok := c.x.absentAs(o, row, needs[key].version); ok && v <= c.x.rows[row].last {
				note(key, v)
			}
		}
		return true
	})
}

// holdTo holds a read to what its chains have shown.
func (c *checker) holdTo(needs map[chainKey]need, o *op) {
	chains := func(row uint16, has func(need uint32) bool) bool {
		hold := func(rule string, n need) bool {
			if n.by == nil || has(n.version) || o.From.cached() && c.x.untold(row, n.version, o.Inst) {
				return true
			}
			c.violate(rule, row, []*op{n.by, o}, "%s v%d had been seen or written", rowName(row), n.version)
			return false
		}
		return (!o.From.cached() || hold(ruleMonotonic, needs[o.answers(row)])) &&
			(o.Session == 0 || hold(ruleSession, needs[o.inSession(row)]))
	}
	for _, seen := range o.Cells {
		if !chains(seen.Row, func(need uint32) bool { return seen.Version >= need }) {
			return
		}
	}
	c.eachAbsent(o, func(row uint16) bool {
		return chains(row, func(need uint32) bool {
			_, ok := c.x.absentAs(o, row, need)
			return ok
		})
	})
}

package nplusone

import "github.com/gorminfra/infra/internal/sqltext"

// Kind is the kind of a finding.
type Kind string

// The kinds. All count statements of one shape from one place in the code.
const (
	// NPlusOne: a read with at least two different parameter tuples, Count and
	// other aggregates among them.
	NPlusOne Kind = "n_plus_one"
	// DuplicateQuery: a read with the same parameters again, of tables that the
	// scope did not write in between, in the same transaction or outside any.
	DuplicateQuery Kind = "duplicate_query"
	// BatchThis: an insert of one row, an update or a delete with at least two
	// different parameter tuples.
	BatchThis Kind = "batch_this"
)

var kinds = [...]Kind{NPlusOne, DuplicateQuery, BatchThis}

// chunkSize is the mean number of parameters of an IN list from which on a loop
// counts as reading in chunks.
const chunkSize = 100

// kind judges the statements of g, "" when they are no finding.
func (g *group) kind(threshold int) Kind {
	if g.preload || g.text.System || int(g.count) < threshold {
		return ""
	}
	switch g.text.Operation {
	case sqltext.Select:
		switch {
		case g.distinct >= 2:
			if g.pages() || g.chunks() {
				return ""
			}
			return NPlusOne
		case int(g.repeats)+1 >= threshold:
			return DuplicateQuery
		}
	case sqltext.Insert, sqltext.Update, sqltext.Delete, sqltext.Merge:
		if g.distinct >= 2 {
			return BatchThis
		}
	}
	return ""
}

// pages reports whether the loop reads one result page by page, as FindInBatches
// does: several rows at a time, up to a limit, and what the equalities compare
// with stays the same.
func (g *group) pages() bool {
	return g.text.Limit && !g.keysVary && g.maxRows > 1
}

// chunks reports whether the loop reads by long IN lists.
func (g *group) chunks() bool {
	for _, p := range g.text.Where {
		if p.Op == "in" && len(p.Args) > 0 {
			return uint64(g.args) >= chunkSize*uint64(g.count)
		}
	}
	return false
}

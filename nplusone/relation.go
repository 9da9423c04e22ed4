package nplusone

import (
	"slices"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

// model is a table with the relations that a Preload can name.
type model struct {
	name      string
	table     string
	relations []*relation
}

// relation leads from one row of its model to rows of target: those where
// columns have the row's values. With a join table the columns are the join
// table's.
type relation struct {
	name    string
	single  bool // belongs to or has one: at most one row
	target  *model
	columns []string
	join    string

	typeColumn, typeValue string // polymorphic
}

// match says how a repeated read fits a relation.
type match uint8

const (
	noMatch     match = iota
	conditional       // the read has further conditions, an order or a limit
	exact
)

// matches reports whether the loop of g reads what r leads to.
func (r *relation) matches(g *group) match {
	if r.join != "" && readsBoth(g.text, r.target.table, r.join) {
		return r.matchesJoin(g)
	}
	table := r.target.table
	if r.join != "" {
		table = r.join // a many-to-many followed by hand
	}
	if len(r.columns) == 0 || len(g.text.Where) == 0 || g.text.Where[0].Table != table {
		return noMatch
	}
	for _, c := range r.columns {
		if !slices.ContainsFunc(g.text.Where, func(p sqltext.Predicate) bool { return p.Column == c && len(p.Args) > 0 }) {
			return noMatch
		}
	}
	conditions := len(g.text.Where) - len(r.columns)
	if r.typeColumn != "" {
		i := slices.IndexFunc(g.text.Where, func(p sqltext.Predicate) bool { return p.Column == r.typeColumn })
		if i < 0 || !r.typeFits(g, &g.text.Where[i]) {
			return noMatch
		}
		conditions--
	}
	if conditions > 0 || !g.text.WhereExact || g.text.Limit && !r.single || r.join != "" {
		return conditional
	}
	return exact
}

// matchesJoin recognises the query of Association(name).Find: the other table
// joined with the join table, whose own columns are compared in the ON.
func (r *relation) matchesJoin(g *group) match {
	for _, c := range r.columns {
		if !strings.Contains(g.text.Shape, c+`" = ?`) && !strings.Contains(g.text.Shape, c+"` = ?") && !strings.Contains(g.text.Shape, c+" = ?") {
			return noMatch
		}
	}
	if g.text.Limit {
		return conditional
	}
	return exact
}

// typeFits compares a polymorphic type with the loop's, as far as a sample tells.
func (r *relation) typeFits(g *group, p *sqltext.Predicate) bool {
	if len(g.samples) == 0 || len(p.Args) != 1 {
		return true
	}
	return g.samples[0].is(p.Args[0], r.typeValue)
}

func readsBoth(text *sqltext.Statement, a, b string) bool {
	if len(text.Reads) != 2 && !(a == b && len(text.Reads) == 1) {
		return false
	}
	has := func(name string) bool {
		return slices.ContainsFunc(text.Reads, func(t sqltext.Table) bool { return t.Name == name })
	}
	return has(a) && has(b)
}

// candidate is a relation that may be what a loop follows, with the statements
// that loaded the rows it starts from.
type candidate struct {
	parent *group
	model  *model
	rel    *relation
	fit    match
}

// candidates finds what the loop of g may follow: relations of the models that
// were read before in the scope, in at least as many rows as the loop has keys.
// The most recently loaded model comes first; a relation appears once.
func candidates(g *group, groups []group, c *catalog) []candidate {
	var all []candidate
	for _, p := range loadedBefore(g.first, groups) {
		m := p.modelIn(c)
		if m == nil || p.key == g.key || rowsLoaded(p, groups) < int64(g.distinct) {
			continue
		}
		for _, r := range m.relations {
			fit := r.matches(g)
			if fit != noMatch && !slices.ContainsFunc(all, func(o candidate) bool { return o.rel == r }) {
				all = append(all, candidate{p, m, r, fit})
			}
		}
	}
	return all
}

// modelIn is the model of g's rows, nil when it is not known.
func (g *group) modelIn(c *catalog) *model {
	if g.model == nil && len(g.text.Reads) == 1 {
		return c.ofTable(g.text.Reads[0].Name)
	}
	return g.model
}

// rowsLoaded is the number of rows that p loaded, together with other shapes of
// the same place: the first page of FindInBatches has another than the rest.
func rowsLoaded(p *group, groups []group) (n int64) {
	for i := range groups {
		o := &groups[i]
		if o.model != p.model || o.text.Operation != sqltext.Select || o.preload != p.preload || o.key != p.key && p.model == nil {
			continue
		}
		if p.site != nil && (o.site == nil || o.site.hash != p.site.hash) {
			continue
		}
		if o.maxRows >= unknownRows {
			return unknownRows
		}
		n += o.rows
	}
	return n
}

// loadedBefore returns the reads of rows that began before start, the latest
// first.
func loadedBefore(start time.Duration, groups []group) []*group {
	var before []*group
	for i := range groups {
		p := &groups[i]
		if p.first < start && p.text.Operation == sqltext.Select && !p.text.Aggregate && p.maxRows > 0 {
			before = append(before, p)
		}
	}
	slices.SortStableFunc(before, func(a, b *group) int { return int(b.first - a.first) })
	return before
}

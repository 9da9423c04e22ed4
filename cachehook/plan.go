package cachehook

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync/atomic"

	"github.com/gorminfra/infra/internal/sqltext"
)

// plan is what is known of one statement's text under one catalogue: what it
// depends on, and for how long rules cache it.
type plan struct {
	text    *sqltext.Statement
	catalog *catalog
	cells   []*cell // everyTag, schemaTag, the tables' tags
	tags    []string
	lead    []byte // of every key: a sum of the database, the text, and what its names mean
	tally   *tally
	why     string // why it cannot be cached, or ""
	terms   terms  // of the rules, if they are for all its tables
	ruled   bool
}

const planSlots = 1024 // a power of two

// plans remembers plans in a direct-mapped table: one load and two comparisons
// for a text in constant use. Two texts that share a slot are planned anew.
type plans struct {
	slots [planSlots]atomic.Pointer[plan]
}

// plan returns the plan of a cacheable text.
func (c *Cache) plan(sql string, text *sqltext.Statement, cat *catalog) *plan {
	slot := &c.plans.slots[text.Fingerprint%planSlots]
	if p := slot.Load(); p != nil && p.text == text && p.catalog == cat {
		return p
	}
	p := &plan{text: text, catalog: cat}
	p.terms, p.ruled = c.byRule(text)
	var tables []string
	if tables, p.why = cat.readTags(text, c.cfg.Functions); p.why == "" {
		p.cells, p.tags = c.tableCells(tables)
		p.tally = c.tallies.first(p.cells)
		lead := appendString(appendString(nil, cat.space), sql)
		lead = binary.AppendUvarint(cat.identify(lead, text.Reads), uint64(len(p.tags)))
		for _, tag := range p.tags {
			lead = appendString(lead, tag)
		}
		sum := sha256.Sum256(lead) // each entry in memory holds its key
		p.lead = append([]byte{'q'}, sum[:]...)
	}
	slot.Store(p)
	return p
}

// ruleOf is byRule for a text that may have been planned before.
func (c *Cache) ruleOf(text *sqltext.Statement) (terms, bool) {
	if p := c.plans.slots[text.Fingerprint%planSlots].Load(); p != nil && p.text == text {
		return p.terms, p.ruled
	}
	return c.byRule(text)
}

// tableCells returns the cells of a query: those of the tables behind the two
// that every query depends on.
func (c *Cache) tableCells(tables []string) ([]*cell, []string) {
	cells := append(make([]*cell, 0, len(tables)+2), c.every, c.schema)
	tags := append(make([]string, 0, len(tables)+2), everyTag, schemaTag)
	for _, t := range tables {
		cells, tags = append(cells, c.mirror.cell(t, true)), append(tags, t)
	}
	return cells, tags
}

// withTags returns the plan's cells and tags with the caller's own behind.
func (c *Cache) withTags(p *plan, own []string) ([]*cell, []string) {
	if len(own) == 0 {
		return p.cells, p.tags
	}
	cells, tags := p.cells[:len(p.cells):len(p.cells)], p.tags[:len(p.tags):len(p.tags)]
	for _, t := range own {
		cells, tags = append(cells, c.mirror.cell(t, c.pins(t))), append(tags, t)
	}
	return cells, tags
}

func foldEdges(declared map[string][]string) edges {
	folded := make(edges, len(declared))
	for name, others := range declared {
		folded[strings.ToLower(name)] = append([]string(nil), others...)
	}
	return folded
}

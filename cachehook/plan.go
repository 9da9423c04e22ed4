package cachehook

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
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
	secured string // a table under row-level security, so that it takes a tenant; or ""
	terms   terms  // of the rules, if they are for all its tables
	ruled   bool

	relation *relation // whose rows it asks for by primary key, or nil
	whole    *cell     // of that relation
	unseen   []string  // see needs

	asked atomic.Pointer[asking] // how it was asked last
	took  atomic.Uint32          // what its last flight took, microseconds; 0: none has ended
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
	read := cat.reads(text, c.cfg.Functions)
	if p.why, p.secured, p.unseen = read.why, read.secured, read.unseen; p.why == "" {
		tables := read.tags
		p.cells, p.tags = c.tableCells(tables)
		p.tally = c.tallies.first(p.cells)
		lead := appendString(appendString(nil, cat.space), sql)
		lead = binary.AppendUvarint(cat.identify(lead, text.Reads), uint64(len(p.tags)))
		for _, part := range slices.Concat(p.tags, read.sums) {
			lead = appendString(lead, part)
		}
		sum := sha256.Sum256(lead) // each entry in memory holds its key
		p.lead = append([]byte{'q'}, sum[:]...)
		if r := cat.lookup(text); r != nil && len(tables) == 1 && tables[0] == r.root {
			p.relation, p.whole = r, c.mirror.cell(wholeTag(r.root), true)
			c.tallies.of(p.whole) // by which its entries are counted
		}
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

// expand gives a query of a plan all that it depends on: with the rows of a
// look-up by primary key, where the table's own tag, which counts only for what was
// not found, comes last; and with the caller's own tags.
func (c *Cache) expand(q *query) {
	p := q.plan
	if p == nil || q.expanded {
		return
	}
	q.expanded = true
	if p.relation == nil && len(q.own) == 0 {
		return
	}
	cells := append(make([]*cell, 0, len(p.cells)+len(q.own)+maxRowsFew), p.cells...)
	table := cells[len(cells)-1]
	byKey := p.relation != nil && !slices.Contains(q.own, table.tag)
	if byKey {
		cells, q.rows = c.appendRows(append(cells[:len(cells)-1], p.whole), table, q)
		byKey = q.rows > 0
	}
	if !byKey {
		cells = append(cells[:0], p.cells...)
	}
	for _, tag := range q.own {
		cells = append(cells, c.mirror.cell(tag, c.pins(tag)))
	}
	if byKey {
		cells = append(cells, table)
	}
	q.cells, q.tags = cells, make([]string, len(cells))
	for i, of := range cells {
		q.tags[i] = of.tag
	}
}

// maxRowsFew is for how many rows room is made at once.
const maxRowsFew = 2

// appendRows adds the cells of the rows that a look-up by key asks for, and returns
// how many they are: 0 when it cannot be told.
func (c *Cache) appendRows(cells []*cell, table *cell, q *query) ([]*cell, int) {
	where := q.plan.text.Where
	if key, one := q.plan.relation.rowOf(where, q.args); one {
		return append(cells, c.mirror.rowCell(table.tag, key)), 1
	}
	keys, ok := q.plan.relation.rowsOf(where, q.args, maxRowsRead)
	if !ok {
		return cells, 0
	}
	for _, key := range keys {
		cells = append(cells, c.mirror.rowCell(table.tag, key))
	}
	return cells, len(keys)
}

// adopt makes a query depend on what an entry of it does.
func (q *query) adopt(e *entry) {
	if q.plan == nil {
		return
	}
	q.expanded = true
	q.cells, q.tags = make([]*cell, e.dependsOn()), make([]string, e.dependsOn())
	for i := range q.cells {
		q.cells[i], q.tags[i] = e.dep(i).cell, e.dep(i).cell.tag
	}
	if q.plan.relation == nil {
		return
	}
	table := q.plan.cells[len(q.plan.cells)-1]
	if len(q.tags) > 3 && q.tags[2] == wholeTag(table.tag) { // else its keys could not be told
		q.rows, q.pruned = 0, q.cells[len(q.cells)-1] != table
		for _, tag := range q.tags[3:] {
			if tableOf(tag) == table.tag && tag != table.tag {
				q.rows++
			}
		}
	}
}

func foldEdges(declared map[string][]string) edges {
	folded := make(edges, len(declared))
	for name, others := range declared {
		folded[strings.ToLower(name)] = append([]string(nil), others...)
	}
	return folded
}

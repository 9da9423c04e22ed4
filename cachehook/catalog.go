package cachehook

import (
	"maps"
	"slices"
	"strings"

	"github.com/gorminfra/infra/internal/sqltext"
)

// The tags that stand for more than one table. Every entry of a query depends on
// both.
const (
	everyTag  = "*"       // bumped by a write that cannot be understood
	schemaTag = "!schema" // bumped by DDL
	serverTag = "!server" // bumped when Redis has become another server
)

// tablePrefix leads the tags of tables.
const tablePrefix = "table:"

// tableTag is a table's tag. Schemas and case are dropped: tables of one name
// share a tag, and are invalidated together.
func tableTag(name string) string { return tablePrefix + strings.ToLower(name) }

// catalog is what the database says of its relations, at one time. It is
// immutable.
type catalog struct {
	// trusting: the dialect's catalogue is not read, and relations are what the
	// statements call them.
	trusting bool
	// folded: relations are found by their name in lower case.
	folded bool
	// space tells apart databases, and settings that change answers; it leads
	// every key.
	space string
	// schema is schemaTag's stamp from before the catalogue was read.
	schema stamp
	loaded int64 // on the cache's clock

	path      []string               // the schemas that a bare name is looked up in
	relations map[string][]*relation // by name as sqltext folds it
	functions map[string]function    // those of no one but the user, by name and schema.name
	hidden    []hidden
}

// relation is a table or a view.
type relation struct {
	schema, name string
	view         bool
	temporary    bool
	never        string             // why it cannot be cached, or ""
	root         string             // tag: its own, or that of its whole family of partitions
	text         *sqltext.Statement // a view's definition
	reads        []*relation        // a view's
	onDelete     []*relation        // tables that foreign keys change with it
	onUpdate     []*relation
	triggers     bool // a write runs code of the user's: triggers, rules, volatile defaults
}

// change is the kind of a write, as far as foreign keys care.
type change uint8

const (
	inserts change = iota
	updates
	deletes
	changes // any of them
)

// find returns the relations that a name in a statement may mean.
func (c *catalog) find(t sqltext.Table) []*relation {
	name := t.Name
	if c.folded {
		name = strings.ToLower(name)
	}
	all := c.relations[name]
	if t.Schema == "" {
		return all
	}
	for _, r := range all {
		if r.schema == t.Schema {
			return []*relation{r}
		}
	}
	return nil
}

// read returns the one relation that a statement reads, or nil when that cannot
// be told.
func (c *catalog) read(t sqltext.Table) *relation {
	found := c.find(t)
	if len(found) == 1 {
		return found[0]
	}
	for _, r := range found {
		if r.temporary { // of some session, perhaps of this one, and found first
			return r
		}
	}
	for _, schema := range c.path {
		for _, r := range found {
			if r.schema == schema {
				return r
			}
		}
	}
	return nil
}

// edges are what a program declares: a write of a table that also changes
// others, by a trigger. A table that is named there is understood.
type edges map[string][]string

// identify writes down which relations the names stand for.
func (c *catalog) identify(b []byte, tables []sqltext.Table) []byte {
	for _, t := range tables {
		if r := c.read(t); r != nil {
			t = sqltext.Table{Schema: r.schema, Name: r.name}
		}
		b = appendString(appendString(b, t.Schema), t.Name)
	}
	return b
}

// writeWalk collects the tags of everything that a write changes.
type writeWalk struct {
	catalog    *catalog
	declared   edges
	tags       map[string]struct{}
	seen       map[any]change // by relation, or by name where there is none
	understood bool
}

// visit reports whether the kind of change is new for what key stands for.
func (w *writeWalk) visit(key any, kind change) bool {
	if before, ok := w.seen[key]; ok && before >= kind {
		return false
	}
	w.seen[key] = kind
	return true
}

func (w *writeWalk) table(t sqltext.Table, kind change) {
	w.tags[tableTag(t.Name)] = struct{}{}
	found := w.catalog.find(t)
	for _, r := range found {
		w.relation(r, kind)
	}
	if len(found) == 0 && w.visit(t.Name, kind) {
		w.edges(t.Name)
		w.understood = w.understood && w.catalog.trusting
	}
}

func (w *writeWalk) relation(r *relation, kind change) {
	if !w.visit(r, kind) {
		return
	}
	w.tags[tableTag(r.name)] = struct{}{}
	if r.root != "" {
		w.tags[r.root] = struct{}{}
	}
	if r.triggers && !w.edges(r.name) {
		w.understood = false
	} else {
		w.edges(r.name)
	}
	for _, base := range r.reads { // an updatable view writes to its tables
		w.relation(base, kind)
	}
	// What a foreign key does to a child may go on from there.
	if kind == deletes || kind == changes {
		for _, child := range r.onDelete {
			w.relation(child, changes)
		}
	}
	if kind == updates || kind == changes {
		for _, child := range r.onUpdate {
			w.relation(child, changes)
		}
	}
}

// edges follows what is declared of a table, and reports whether anything is.
func (w *writeWalk) edges(table string) bool {
	others, declared := w.declared[strings.ToLower(table)]
	for _, other := range others {
		w.table(sqltext.Table{Name: other}, changes)
	}
	return declared
}

// changeOf says which actions of foreign keys a statement can set off.
func changeOf(st *sqltext.Statement) change {
	if len(st.Writes) != 1 {
		return changes
	}
	switch st.Operation {
	case sqltext.Insert:
		shape := strings.ToLower(st.Shape)
		if !strings.HasPrefix(shape, "insert into") || strings.Contains(shape, "on conflict") || strings.Contains(shape, "on duplicate") {
			return changes
		}
		return inserts
	case sqltext.Update:
		return updates
	case sqltext.Delete:
		return deletes
	}
	return changes
}

// writeTags returns the tags that a transaction's statements have to bump. A nil
// catalogue understands nothing.
func (c *catalog) writeTags(statements []*sqltext.Statement, declared edges) (tags []string, schema bool) {
	set := make(map[string]struct{})
	understood := c != nil
	for _, st := range statements {
		if st.Opaque || st.Multiple || st.Operation == sqltext.Unknown || st.Operation == sqltext.DDL {
			set[schemaTag], schema = struct{}{}, true
		}
		if st.Opaque || st.Operation == sqltext.Unknown || len(st.Writes) == 0 {
			understood = false
		}
		if c == nil {
			continue
		}
		understood = understood && !c.actsUnseen(st)
		w := writeWalk{catalog: c, declared: declared, tags: set, seen: make(map[any]change), understood: understood}
		kind := changeOf(st)
		for _, t := range st.Writes {
			w.table(t, kind)
		}
		understood = w.understood
	}
	if !understood {
		set[everyTag] = struct{}{}
	}
	for _, st := range statements {
		for _, t := range st.Writes { // also where the catalogue is not known
			set[tableTag(t.Name)] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(set)), schema
}

package cachehook

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// edges are what a program declares: a write of a table that also changes
// others, by a trigger. A table that is named there is understood.
type edges map[string][]string

// written is what a transaction has written.
type written struct {
	statements []*sqltext.Statement
	rows       *writtenRows // nil: none are known
	// exact: names mean the tables that they mean outside transactions.
	exact bool
}

// writtenRows are the rows that the statements of a transaction are confined to.
type writtenRows struct {
	mu sync.Mutex // guards the rest
	of map[*sqltext.Statement]*rowsWritten
	// schema is that of the catalogue before the first statement; varied: other
	// statements had another one.
	schema stamp
	varied bool
}

type rowsWritten struct {
	catalog  *catalog
	relation *relation // nil: not known
	keys     map[string]struct{}
}

// rowsKey is where a transaction keeps them.
type rowsKey struct{ c *Cache }

// Writes implements hook.WriteReader.
func (p part) Writes(t *hook.Txn, text *sqltext.Statement, args []any) {
	rows, _ := t.Value(rowsKey(p)).(*writtenRows)
	if rows == nil {
		rows = &writtenRows{of: make(map[*sqltext.Statement]*rowsWritten)}
		t.SetValue(rowsKey(p), rows)
	}
	rows.note(p.c.catalog.present.Load(), text, args)
}

func (w *writtenRows) note(cat *catalog, text *sqltext.Statement, args []any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.varied = w.varied || len(w.of) > 0 && w.schema != cat.stamp()
	w.schema = cat.stamp()
	all, again := w.of[text]
	if !again {
		all = &rowsWritten{catalog: cat, keys: make(map[string]struct{})}
		w.of[text] = all
		all.relation = cat.writtenByKey(text)
	}
	if all.relation == nil {
		return
	}
	keys, ok := all.relation.rowsWritten(text, args)
	if !ok || all.catalog != cat || len(all.keys) > maxRowsWritten {
		all.relation, all.keys = nil, nil
		return
	}
	for _, k := range keys {
		all.keys[k] = struct{}{}
	}
}

// goBy reports whether the schema was that of c already before the statements ran.
func (w *writtenRows) goBy(c *catalog) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.varied && w.schema == c.stamp()
}

// writtenByKey returns the relation of which a text writes rows that it names by
// key, or nil.
func (c *catalog) writtenByKey(text *sqltext.Statement) *relation {
	if c == nil || c.trusting || text.Multiple || text.Opaque || len(text.Writes) != 1 {
		return nil
	}
	r := c.read(text.Writes[0])
	// What begins so holds no other write, as a CTE would be.
	switch shape := text.Shape; {
	case r == nil:
	case strings.HasPrefix(shape, "UPDATE") && !strings.HasPrefix(shape, "UPDATE OR "), strings.HasPrefix(shape, "DELETE"):
		return r
	case strings.HasPrefix(shape, "INSERT INTO ") && r.upserts(text.Upsert):
		return r
	}
	return nil
}

// find returns the rows of the relation that the statement is confined to, or nil.
func (w *written) find(c *catalog, st *sqltext.Statement) *rowsWritten {
	if w.rows == nil {
		return nil
	}
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	if all := w.rows.of[st]; all != nil && all.catalog == c && all.relation != nil {
		return all
	}
	return nil
}

// writeWalk collects the tags of everything that a write changes.
type writeWalk struct {
	catalog    *catalog
	declared   edges
	tags       map[string]struct{}
	rows       map[string]map[string]struct{} // by table's tag; nil for one of which all may be written
	exact      bool
	known      *rowsWritten   // of the statement at hand, or nil
	seen       map[any]change // by relation, or by name where there is none
	statement  *sqltext.Statement
	understood bool
	why        string // not, in words; empty where DDL is why, which empties everything by itself
}

// lost notes that what is written is not known.
func (w *writeWalk) lost(why string) {
	if w.why == "" && (w.statement == nil || w.statement.Operation != sqltext.DDL) {
		w.why = why
	}
	w.understood = false
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
	found := w.catalog.find(t)
	if w.exact && len(found) > 1 && w.catalog.path != nil && !slices.ContainsFunc(found, func(r *relation) bool { return r.temporary }) {
		if r := w.catalog.read(t); r != nil {
			found = []*relation{r}
		}
	}
	for _, r := range found {
		var rows map[string]struct{}
		if w.known != nil && w.known.relation == r {
			rows = w.known.keys
		}
		w.relation(r, kind, rows)
	}
	if len(found) == 0 && w.visit(t.Name, kind) {
		w.tags[tableTag(t.Name)] = struct{}{}
		w.edges(t.Name)
		if !w.catalog.trusting {
			w.lost("table " + t.String() + " is not known")
		}
	}
}

func (w *writeWalk) relation(r *relation, kind change, rows map[string]struct{}) {
	if !w.visit(r, kind) {
		return
	}
	w.bump(r, kind, rows)
	if r.triggers && !w.edges(r.name) {
		w.lost("table " + r.name + " has a trigger, rule, default, check or policy that runs code, and Affects does not say what it changes")
	} else {
		w.edges(r.name)
	}
	for _, base := range r.reads { // an updatable view writes to its tables
		w.relation(base, kind, nil)
	}
	// What a foreign key does to a child may go on from there.
	if kind == deletes || kind == changes {
		for _, child := range r.onDelete {
			w.relation(child, changes, nil)
		}
	}
	if kind == updates || kind == changes {
		for _, child := range r.onUpdate {
			w.relation(child, changes, nil)
		}
	}
}

// bump notes the tags of one relation. A new row shows in none that was there.
func (w *writeWalk) bump(r *relation, kind change, rows map[string]struct{}) {
	if r.root == "" {
		return
	}
	w.tags[r.root] = struct{}{}
	if !r.keyed() || kind == inserts {
		return
	}
	all, before := w.rows[r.root]
	if rows == nil || before && all == nil || len(all)+len(rows) > maxRowsWritten {
		w.rows[r.root] = nil
		return
	}
	if all == nil {
		all = make(map[string]struct{}, len(rows))
		w.rows[r.root] = all
	}
	maps.Copy(all, rows)
}

// edges follows what is declared of a table, and reports whether anything is.
func (w *writeWalk) edges(table string) bool {
	others, declared := w.declared[strings.ToLower(table)]
	known := w.known
	w.known = nil // also of the table itself: a trigger is not confined to the rows of its statement
	for _, other := range others {
		w.table(tableNamed(other), changes)
	}
	w.known = known
	return declared
}

// changeOf says which actions of foreign keys a statement can set off.
func changeOf(st *sqltext.Statement) change {
	if len(st.Writes) != 1 {
		return changes
	}
	switch st.Operation {
	case sqltext.Insert:
		switch shape := strings.ToLower(st.Shape); {
		case !strings.HasPrefix(shape, "insert into "):
			return changes
		case st.Upsert != nil && st.Upsert.Nothing:
			return inserts
		case st.Upsert != nil:
			return updates
		case strings.Contains(shape, "on conflict"), strings.Contains(shape, "on duplicate"):
			return changes
		}
		return inserts
	case sqltext.Update:
		if strings.HasPrefix(st.Shape, "UPDATE OR ") { // SQLite's may delete what is in the way
			return changes
		}
		return updates
	case sqltext.Delete:
		return deletes
	}
	return changes
}

// writeTags returns the tags that a transaction has to bump, and in words why that is
// everything, if it is so. A nil catalogue understands nothing.
func (c *catalog) writeTags(what written, declared edges) (tags []string, schema bool, why string) {
	w := writeWalk{
		catalog: c, declared: declared, exact: what.exact,
		tags: make(map[string]struct{}), rows: make(map[string]map[string]struct{}), understood: c != nil,
	}
	for _, st := range what.statements {
		if st.Opaque || st.Multiple || st.Creates || st.Operation == sqltext.Unknown || st.Operation == sqltext.DDL || c != nil && c.definesUnseen(st) {
			w.tags[schemaTag], schema = struct{}{}, true
		}
		w.statement = st
		if st.Opaque || st.Operation == sqltext.Unknown || len(st.Writes) == 0 {
			w.lost("it is not known what is written by " + st.Shape)
		}
		if c == nil {
			continue
		}
		if c.actsUnseen(st) {
			w.lost("it is not known what the functions write that are called by " + st.Shape)
		}
		w.seen, w.known = make(map[any]change), what.find(c, st)
		kind := changeOf(st)
		for _, t := range st.Writes {
			w.table(t, kind)
		}
	}
	if !w.understood {
		w.tags[everyTag] = struct{}{}
	}
	for table, keys := range w.rows {
		if keys == nil {
			w.tags[wholeTag(table)] = struct{}{}
		}
		for k := range keys {
			w.tags[rowTag(table, k)] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(w.tags)), schema, w.why
}

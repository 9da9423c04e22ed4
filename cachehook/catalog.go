package cachehook

import (
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

// A table has three kinds of tags. Its own one is bumped by each write, and what
// reads many of its rows depends on it. A row has one, and the table as a whole:
// what is read by primary key depends on those two. A write of rows whose keys are
// known bumps the rows, others bump the whole.
func tableTag(name string) string { return tablePrefix + strings.ToLower(name) }

// rowMark parts a row from its table in a tag; with no row behind it is the whole.
const rowMark = "\x01"

func wholeTag(table string) string { return table + rowMark }

func rowTag(table, key string) string { return table + rowMark + key }

// tableOf returns the table's own tag.
func tableOf(tag string) string {
	table, _, _ := strings.Cut(tag, rowMark)
	return table
}

// isRow reports whether a tag is a row's.
func isRow(tag string) bool {
	i := strings.Index(tag, rowMark)
	return i >= 0 && i < len(tag)-len(rowMark)
}

// isTable reports whether a tag is a table's own.
func isTable(tag string) bool {
	return strings.HasPrefix(tag, tablePrefix) && !strings.Contains(tag, rowMark)
}

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
	// since is the schema that the roster named then, as far as was known here.
	since  stamp
	loaded int64 // on the cache's clock
	kept   int64 // likewise, when the reading had ended

	path      []string               // the schemas that a bare name is looked up in
	relations map[string][]*relation // by name as sqltext folds it
	functions map[string]function    // those of no one but the user, by name and schema.name
	hidden    []hidden
	// varied: sessions have settings of their own, which may be what policies look at.
	varied bool
}

// relation is a table or a view.
type relation struct {
	schema, name string
	view         bool
	temporary    bool
	folded       bool               // its columns are found by their names in any case
	never        string             // why it cannot be cached, or ""
	root         string             // tag: its own, or that of its whole family of partitions
	family       bool               // it has partitions, children or parents
	key          []keyColumn        // its primary key, when the values of all its columns can be told apart
	rival        bool               // another unique index has the primary key's columns
	text         *sqltext.Statement // a view's definition
	reads        []*relation        // a view's
	as           int64              // the role that a view reads as; 0: whoever asks
	security     *rowSecurity       // its row-level security, or nil
	onDelete     []*relation        // tables that foreign keys change with it
	onUpdate     []*relation
	triggers     bool // a write runs code of the user's; see pgRelations
}

// change is the kind of a write, as far as foreign keys care.
type change uint8

const (
	inserts change = iota
	updates
	deletes
	changes // any of them
)

// stamp is the schema's, zero where there is none, or no catalogue.
func (c *catalog) stamp() stamp {
	if c == nil {
		return stamp{}
	}
	return c.schema
}

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

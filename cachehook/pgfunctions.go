package cachehook

import (
	"context"
	"slices"
	"strings"

	"github.com/gorminfra/infra/internal/sqltext"
)

// function is what all user's functions of one name have in common.
type function struct {
	volatile bool // one of them may write
	changes  bool // the answer of one of them is not decided by its arguments alone
	personal bool // the text of one of them asks who asks
	sets     bool // the text of one of them changes a setting of the session
	defines  bool // the text of one of them may change the schema
}

// hidden is something that calls a function without a text showing a call: a
// function of a table's row is written like a column, an operator and a cast call
// the one that they were made with.
type hidden struct {
	name     string // the text has to mention it; "": it need not
	function string
	schema   string // the function's
	kind     string // row, operator, cast
	volatile bool
	of       *relation // a function of its rows; nil: of any rows
}

func (h *hidden) what() string {
	switch h.kind {
	case "row":
		return "column " + h.name
	case "operator":
		return "operator " + h.name
	}
	return "a cast"
}

// pgHidden finds what hides functions whose answer is not decided by their
// arguments alone, but for those of extensions. A function of a row counts
// for the table's own rows; where some table has a column of that row's type, or
// the type belongs to no table, for any. A column of its name goes before it.
const pgHidden = `WITH f AS (
	SELECT p.*, p.proargtypes[0] AS arg, n.nspname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
	WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.provolatile <> 'i'
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
)
SELECT 'row', f.proname, f.proname, f.nspname, f.provolatile = 'v', CASE WHEN c.relkind = 'c' OR EXISTS (
		SELECT FROM pg_catalog.pg_attribute a WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (t.oid, t.typarray)
	) THEN 0 ELSE coalesce(c.oid, 0) END::bigint
	FROM f JOIN pg_catalog.pg_type t ON t.oid = f.arg LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
	LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
	WHERE f.prokind = 'f' AND f.pronargs >= 1 AND f.pronargs - f.pronargdefaults <= 1
	AND (t.typtype = 'c' OR b.typtype = 'c' OR t.typname IN ('record', 'anyelement', 'anycompatible', 'anynonarray', 'anycompatiblenonarray'))
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attname = f.proname AND NOT a.attisdropped)
UNION SELECT 'operator', o.oprname, f.proname, f.nspname, f.provolatile = 'v', 0 FROM f JOIN pg_catalog.pg_operator o ON o.oprcode = f.oid
UNION SELECT 'cast', CASE WHEN k.castcontext = 'e' AND n.nspname <> 'pg_catalog' THEN t.typname ELSE '' END, f.proname, f.nspname, f.provolatile = 'v', 0
	FROM f JOIN pg_catalog.pg_cast k ON k.castfunc = f.oid JOIN pg_catalog.pg_type t ON t.oid = k.casttarget
	JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace`

// readFunctions reads the user's functions, and what hides them.
func (c *catalog) readFunctions(ctx context.Context, q querier, byOID map[int64]*relation) error {
	err := each(ctx, q, pgFunctions, func(scan func(...any) error) error {
		var schema, name string
		var f function
		if err := scan(&schema, &name, &f.volatile, &f.changes, &f.personal, &f.sets, &f.defines); err != nil {
			return err
		}
		c.functions[schema+"."+name] = f
		all := c.functions[name] // of all schemas
		c.functions[name] = function{all.volatile || f.volatile, all.changes || f.changes, all.personal || f.personal, all.sets || f.sets, all.defines || f.defines}
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, q, pgHidden, func(scan func(...any) error) error {
		var h hidden
		var of int64
		if err := scan(&h.kind, &h.name, &h.function, &h.schema, &h.volatile, &of); err != nil {
			return err
		}
		if of != 0 {
			if h.of = byOID[of]; h.of == nil {
				return nil // of a catalogue's rows
			}
		}
		c.hidden = append(c.hidden, h)
		return nil
	})
}

// userFunction returns what is known of the user's functions that a name may mean
// in a statement outside transactions.
func (c *catalog) userFunction(name string) (f function, known bool) {
	if c.path == nil || strings.Contains(name, ".") {
		f, known = c.functions[name]
		return f, known
	}
	for _, schema := range c.path {
		one, found := c.functions[schema+"."+name]
		f = function{f.volatile || one.volatile, f.changes || one.changes, f.personal || one.personal, f.sets || one.sets, f.defines || one.defines}
		known = known || found
	}
	return f, known
}

// inPath reports whether a statement outside transactions can mean what is hidden:
// a function of a row is never written with its schema.
func (c *catalog) inPath(h *hidden) bool {
	return h.kind != "row" || c.path == nil || slices.Contains(c.path, h.schema)
}

// hiddenIn returns what a text may call without showing it.
func (c *catalog) hiddenIn(text *sqltext.Statement) (found []*hidden) {
	for i := range c.hidden {
		h := &c.hidden[i]
		if (h.of == nil || c.touches(text, h.of)) && text.Mentions(h.name) {
			found = append(found, h)
		}
	}
	return found
}

// touches reports whether the text names a relation or one of its family.
func (c *catalog) touches(text *sqltext.Statement, of *relation) bool {
	for _, tables := range [2][]sqltext.Table{text.Reads, text.Writes} {
		for _, t := range tables {
			for _, r := range c.find(t) {
				if r == of || !r.view && r.root == of.root {
					return true
				}
			}
		}
	}
	return false
}

// definesUnseen reports whether a statement calls a function of the user's whose text
// changes the schema. What that function calls in turn is not looked at.
func (c *catalog) definesUnseen(st *sqltext.Statement) bool {
	return slices.ContainsFunc(st.UnknownFunctions, func(name string) bool { return c.functions[name].defines })
}

// actsUnseen reports whether a statement may change something by a function of
// the user's: one that is not known may.
func (c *catalog) actsUnseen(st *sqltext.Statement) bool {
	if c.functions == nil { // of other databases than Postgres they do not write
		return false
	}
	for _, name := range st.Functions {
		if c.functions[name].volatile {
			return true
		}
	}
	for _, name := range st.UnknownFunctions {
		if _, known := c.functions[name]; !known {
			return true
		}
	}
	for _, h := range c.hiddenIn(st) {
		if h.volatile {
			return true
		}
	}
	return false
}

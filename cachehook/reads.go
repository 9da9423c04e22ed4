package cachehook

import (
	"slices"
	"strings"

	"github.com/gorminfra/infra/internal/sqltext"
)

// readWalk collects the tags of everything that a statement reads: its tables,
// those of views, and those that functions are declared to read.
type readWalk struct {
	catalog  *catalog
	declared edges // of functions
	tags     []string
	why      string // why the statement cannot be cached, or ""
	depth    int
}

const maxViewDepth = 32

// readTags returns the tags of what a statement reads, or why it cannot be
// cached.
func (c *catalog) readTags(text *sqltext.Statement, functions edges) (tags []string, why string) {
	w := readWalk{catalog: c, declared: functions}
	for _, t := range text.Reads {
		w.table(t)
	}
	w.functions(text)
	return w.result()
}

// tableTags is readTags of a table alone.
func (c *catalog) tableTags(name string, functions edges) (tags []string, why string) {
	w := readWalk{catalog: c, declared: functions}
	w.table(tableNamed(name))
	return w.result()
}

func tableNamed(name string) sqltext.Table {
	if schema, table, qualified := strings.Cut(name, "."); qualified {
		return sqltext.Table{Schema: schema, Name: table}
	}
	return sqltext.Table{Name: name}
}

func (w *readWalk) result() (tags []string, why string) {
	if w.why != "" {
		return nil, w.why
	}
	slices.Sort(w.tags)
	return slices.Compact(w.tags), ""
}

func (w *readWalk) never(why string) {
	if w.why == "" {
		w.why = why
	}
}

func (w *readWalk) table(t sqltext.Table) {
	if w.catalog.trusting {
		w.tags = append(w.tags, tableTag(t.Name))
		return
	}
	if r := w.catalog.read(t); r != nil {
		w.relation(r)
		return
	}
	w.never("which table " + t.String() + " is meant is not known")
}

func (w *readWalk) relation(r *relation) {
	switch {
	case r.never != "":
		w.never(r.never)
	case w.depth > maxViewDepth:
		w.never("view " + r.name + " is nested too deep")
	case !r.view:
		w.tags = append(w.tags, r.root)
	default:
		w.depth++
		for _, base := range r.reads {
			w.relation(base)
		}
		w.functions(r.text)
		w.depth--
	}
}

// functions looks at what a text calls, seen and unseen.
func (w *readWalk) functions(text *sqltext.Statement) {
	for _, name := range text.Functions {
		f, users := w.catalog.userFunction(name)
		switch {
		case users && f.changes:
			w.call(name, "function "+name+" may answer differently each time, or reads tables")
		case !users && slices.Contains(text.UnknownFunctions, name):
			w.call(name, "what function "+name+" does is not known")
		}
	}
	for _, h := range w.catalog.hiddenIn(text) {
		if !w.catalog.inPath(h) {
			continue
		}
		w.call(h.function, h.what()+" calls function "+h.function+", which may answer differently each time, or reads tables")
	}
}

// call follows what is declared of a function.
func (w *readWalk) call(name, why string) {
	tables, declared := w.declared[strings.ToLower(name)]
	if _, bare, qualified := strings.Cut(name, "."); !declared && qualified {
		tables, declared = w.declared[strings.ToLower(bare)]
	}
	if !declared {
		w.never(why)
		return
	}
	if w.depth > maxViewDepth {
		w.never("function " + name + " is nested too deep")
		return
	}
	w.depth++
	for _, t := range tables {
		w.table(tableNamed(t))
	}
	w.depth--
}

package cachehook

import (
	"slices"
	"strings"

	"github.com/gorminfra/infra/internal/sqltext"
)

// needs is what a statement, or a table's tag, depends on.
type needs struct {
	tags    []string
	secured string   // what it takes a tenant for, such as a table under row-level security; or ""
	sums    []string // of the policies that apply
	why     string   // why it cannot be cached for anybody, or ""
	unseen  []string // what was followed that the text does not show, in words
}

// readWalk collects the tags of everything that a statement reads: its tables,
// those of views and policies, and those that functions are declared to read.
type readWalk struct {
	needs
	catalog  *catalog
	declared edges // of functions
	depth    int
	seen     map[visit]struct{}
}

// visit is a relation that is read as a role; 0: as whoever asks.
type visit struct {
	relation *relation
	as       int64
}

const maxViewDepth = 32

// reads returns what a statement reads.
func (c *catalog) reads(text *sqltext.Statement, functions edges) needs {
	w := readWalk{catalog: c, declared: functions}
	for _, t := range text.Reads {
		w.table(t)
	}
	w.functions(text)
	return w.result()
}

// readsOf is reads of a table alone.
func (c *catalog) readsOf(name string, functions edges) needs {
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

func (w *readWalk) result() needs {
	if w.why != "" {
		return needs{why: w.why}
	}
	slices.Sort(w.tags)
	w.tags = slices.Compact(w.tags)
	slices.Sort(w.sums)
	return w.needs
}

func (w *readWalk) never(why string) {
	if w.why == "" {
		w.why = why
	}
}

// tenant notes that the answer depends on who asks.
func (w *readWalk) tenant(what string) {
	if w.secured == "" {
		w.secured = what
	}
}

func (w *readWalk) table(t sqltext.Table) {
	if w.catalog.trusting {
		w.tags = append(w.tags, tableTag(t.Name))
		return
	}
	if r := w.catalog.read(t); r != nil {
		w.relation(r, 0)
		return
	}
	w.never("which table " + t.String() + " is meant is not known")
}

// relation follows what is read as a role. Policies may read tables whose policies
// read others, and so on in circles.
func (w *readWalk) relation(r *relation, as int64) {
	v := visit{r, as}
	if _, again := w.seen[v]; again {
		return
	}
	if w.seen == nil {
		w.seen = make(map[visit]struct{})
	}
	w.seen[v] = struct{}{}
	switch {
	case r.never != "":
		w.never(r.never)
	case w.depth > maxViewDepth:
		w.never("view " + r.name + " is nested too deep")
	case !r.view:
		w.tags = append(w.tags, r.root)
		if r.security != nil && (as == 0 || as != r.security.exempt) {
			w.secure(r, as)
		}
	default:
		if r.text.Personal {
			w.tenant("view " + r.name)
		}
		w.depth++
		names := make([]string, len(r.reads))
		for i, base := range r.reads {
			names[i] = base.name
			w.relation(base, r.as)
		}
		w.follow("view "+r.name, names)
		w.functions(r.text)
		w.depth--
	}
}

// secure follows the policies of a table. Those of its partitions and children do
// not apply where it is the table that is named.
func (w *readWalk) secure(r *relation, as int64) {
	switch g := r.security; {
	case g.never != "":
		w.never(g.never)
	case w.catalog.varied:
		w.never("table " + r.name + " has row-level security, and the settings of a session were changed")
	default:
		w.tenant("table " + r.name)
		w.sums = append(w.sums, g.sum)
		w.depth++
		names := make([]string, len(g.reads))
		for i, t := range g.reads {
			names[i] = t.name
			w.relation(t, as)
		}
		w.follow("row-level security of "+r.name, names)
		for _, text := range g.texts {
			w.functions(text)
		}
		w.depth--
	}
}

// functions looks at what a text calls, seen and unseen.
func (w *readWalk) functions(text *sqltext.Statement) {
	for _, name := range text.Functions {
		f, users := w.catalog.userFunction(name)
		if f.personal {
			w.tenant("function " + name)
		}
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
		if w.catalog.functions[h.schema+"."+h.function].personal {
			w.tenant("function " + h.function)
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
	w.follow("function "+name, tables)
	w.depth++
	for _, t := range tables {
		w.table(tableNamed(t))
	}
	w.depth--
}

// follow notes, for who wants to be told, what the text does not show.
func (w *readWalk) follow(what string, reads []string) {
	if len(reads) == 0 {
		what += " reads no table"
	} else {
		reads = slices.Clone(reads)
		slices.Sort(reads)
		what += " reads " + strings.Join(reads, ", ")
	}
	if !slices.Contains(w.unseen, what) {
		w.unseen = append(w.unseen, what)
	}
}

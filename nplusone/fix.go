package nplusone

import (
	"fmt"
	"strings"

	"github.com/gorminfra/infra/internal/sqltext"
)

// Confidence says how sure a fix is.
type Confidence string

const (
	// High: the loop's condition is exactly that of one relation, of a model
	// that was loaded before in enough rows, from a known place.
	High Confidence = "high"
	// Likely: several relations fit, or the loop's query has further conditions,
	// or call sites were not collected, or no relation was needed.
	Likely Confidence = "likely"
)

// Fix is a way to do the work of the loop in one statement.
type Fix struct {
	// Code is Go, to be used in the place that Note names; empty when it depends
	// on the program.
	Code string `json:"code,omitempty"`
	// Note says where the code belongs and what to mind.
	Note       string     `json:"note"`
	Confidence Confidence `json:"confidence"`
	// Model and Relation are those of a Preload.
	Model    string `json:"model,omitempty"`
	Relation string `json:"relation,omitempty"`
	// Parent is the line that loaded the rows which the loop goes through, nil
	// when it is not known.
	Parent *Place `json:"parent,omitempty"`
}

// maxNesting bounds the length of a nested Preload.
const maxNesting = 4

// fixer names the fixes of one report.
type fixer struct {
	groups    []group
	catalog   *catalog
	threshold int
}

func (f *fixer) fixes(g *group, kind Kind) ([]Fix, *group) {
	name, variable := f.target(g)
	column := keyColumn(g.text)
	switch {
	case kind == DuplicateQuery:
		return []Fix{{Note: "ask once, before the loop, and keep the answer", Confidence: Likely}}, nil
	case kind == BatchThis:
		return []Fix{batchFix(g, name, variable, column)}, nil
	case g.text.Aggregate && column != "":
		_, parent := f.preloads(g)
		return []Fix{{
			Code:       fmt.Sprintf("db.Model(&%s{}).Select(%q).Where(%q, keys).Group(%q)", name, column+", "+aggregate(g.text), column+" IN ?", column),
			Note:       "one query for all groups, before the loop",
			Confidence: Likely,
		}}, parent
	}
	if fixes, parent := f.preloads(g); len(fixes) > 0 {
		return fixes, parent
	}
	if column != "" {
		return []Fix{{
			Code:       fmt.Sprintf("db.Where(%q, keys).Find(&%s)", column+" IN ?", variable),
			Note:       "one query for all keys, before the loop",
			Confidence: Likely,
		}}, nil
	}
	return []Fix{{Note: "ask for all of it in one query, before the loop", Confidence: Likely}}, nil
}

// preloads names a Preload for each relation that the loop may follow, and the
// group that loaded the rows for the first.
func (f *fixer) preloads(g *group) ([]Fix, *group) {
	found := candidates(g, f.groups, f.catalog)
	var fixes []Fix
	for _, c := range found {
		path, root, model := f.path(c, maxNesting)
		fix := Fix{
			Code: fmt.Sprintf("db.Preload(%q)", path), Note: "on the query that loads " + model.name,
			Confidence: Likely, Model: model.name, Relation: path, Parent: root.site.place(),
		}
		switch {
		case c.fit == conditional:
			fix.Note += "; give it the further conditions of the loop's query"
		case len(found) == 1 && g.site != nil:
			fix.Confidence = High
		}
		fixes = append(fixes, fix)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return fixes, found[0].parent
}

// path is the relation's name from the model that the program itself loads: a
// parent that came by a Preload, or by a loop that is a finding, is reached by
// its own relation first.
func (f *fixer) path(c candidate, depth int) (string, *group, *model) {
	if depth == 0 {
		return c.rel.name, c.parent, c.model
	}
	if c.parent.preload {
		if up := f.byKey(c.parent.parent); up != nil && up.model != nil {
			for _, r := range up.model.relations {
				if r.target == c.parent.model && r.matches(c.parent) != noMatch {
					name, root, m := f.path(candidate{up, up.model, r, exact}, depth-1)
					return name + "." + c.rel.name, root, m
				}
			}
		}
	} else if c.parent.kind(f.threshold) == NPlusOne {
		if up := candidates(c.parent, f.groups, f.catalog); len(up) == 1 {
			name, root, m := f.path(up[0], depth-1)
			return name + "." + c.rel.name, root, m
		}
	}
	return c.rel.name, c.parent, c.model
}

func (f *fixer) byKey(key uint64) *group {
	for i := range f.groups {
		if f.groups[i].key == key {
			return &f.groups[i]
		}
	}
	return nil
}

// target names the model that g is about and a variable of its rows.
func (f *fixer) target(g *group) (name, variable string) {
	table := ""
	switch {
	case len(g.text.Writes) > 0:
		table = g.text.Writes[0].Name
	case len(g.text.Where) > 0:
		table = g.text.Where[0].Table
	case len(g.text.Reads) > 0:
		table = g.text.Reads[0].Name
	}
	m := g.model
	if m == nil || m.table != table {
		m = f.catalog.ofTable(table)
	}
	if m != nil {
		return m.name, lowerCamel(m.table)
	}
	return upperCamel(table), lowerCamel(table)
}

func batchFix(g *group, name, variable, column string) Fix {
	fix := Fix{Confidence: Likely, Note: "one statement, after the loop"}
	switch {
	case g.text.Operation == sqltext.Insert:
		fix.Code = fmt.Sprintf("db.CreateInBatches(&%s, 100)", variable)
		fix.Note = "collect the rows and insert them after the loop"
	case column == "":
	case g.text.Operation == sqltext.Delete:
		fix.Code = fmt.Sprintf("db.Where(%q, keys).Delete(&%s{})", column+" IN ?", name)
	default:
		fix.Code = fmt.Sprintf("db.Model(&%s{}).Where(%q, keys).Updates(values)", name, column+" IN ?")
		fix.Note += "; where the values differ, db.Save(&" + variable + ")"
	}
	return fix
}

// keyColumn is the column that the loop's parameters are compared with.
func keyColumn(text *sqltext.Statement) string {
	for i := range text.Where {
		if len(text.Where[i].Args) > 0 {
			return text.Where[i].Column
		}
	}
	return ""
}

// aggregate is the aggregate in the select list of text, as far as its text is
// plain.
func aggregate(text *sqltext.Statement) string {
	list, found := strings.CutPrefix(text.Shape, "SELECT ")
	if list, _, ok := strings.Cut(list, " FROM "); found && ok && !strings.ContainsAny(list, "?,\"`") {
		return list
	}
	return "count(*)"
}

func upperCamel(table string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(table, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

func lowerCamel(table string) string {
	s := upperCamel(table)
	if s == "" {
		return "rows"
	}
	return strings.ToLower(s[:1]) + s[1:]
}

package slowlog

import (
	"fmt"
	"strings"
	"time"
	"unsafe"

	"github.com/gorminfra/infra/internal/sqltext"
)

// QueryPlan is how the database would run, or has run, a statement. It holds no
// value: conditions are written with "?".
type QueryPlan struct {
	// At is when it was asked for.
	At time.Time
	// Node is whom it was asked of.
	Node string
	// Analyzed: the statement was run once more for it, and the plan has true
	// numbers beside the estimates.
	Analyzed bool
	// Text is the plan as a tree, cut after 16 KiB.
	Text string
	// Findings are what is conspicuous about it.
	Findings []Finding
}

// Kind is the kind of a finding.
type Kind string

// The kinds of findings.
const (
	// SequentialScan: a whole table is read. Rows is its size as the statistics
	// have it, -1 when they do not.
	SequentialScan Kind = "sequential_scan"
	// WrongEstimate: ten times as many rows, or a tenth, came than were expected.
	// Rows is how many came. Only with Analyze.
	WrongEstimate Kind = "wrong_estimate"
	// RowsRemoved: most rows that were read were thrown away by a filter. Rows is
	// how many. Only with Analyze.
	RowsRemoved Kind = "rows_removed_by_filter"
	// Spill: a sort or hash did not fit into work_mem and went to disk. Rows is
	// -1. Only with Analyze.
	Spill Kind = "spill_to_disk"
)

// Finding is one conspicuous place of a plan.
type Finding struct {
	Kind Kind
	// Step is the plan's step, such as "Seq Scan".
	Step string
	// Table is the table it reads, empty when it reads none.
	Table string
	// Rows is what Kind says.
	Rows int64
	// Detail is the finding as a sentence.
	Detail string
}

const (
	maxPlanText = 16 << 10 // bytes
	maxFindings = 20
	maxSteps    = 1000 // of a plan; further ones are left out
	maxNesting  = 100

	// Below smallTable rows an index would not be used, and a filter costs nothing.
	smallTable = 1000
	// An estimate that is wrong tenfold counts from fewRows rows on.
	fewRows     = 100
	wrongFactor = 10
)

func (p *QueryPlan) find(f Finding) {
	if len(p.Findings) < maxFindings {
		f.Step, f.Table, f.Detail = cut(f.Step, maxLabel), cut(f.Table, maxLabel), cut(f.Detail, 2*maxLabel)
		p.Findings = append(p.Findings, f)
	}
}

// String returns Text and, below it, what is conspicuous, for a terminal. It is
// empty for a nil plan, so that Entry.Plan can be printed as it is.
func (p *QueryPlan) String() string {
	if p == nil {
		return ""
	}
	return strings.Join(append([]string{p.Text}, p.details()...), "\n* ")
}

// details are the findings as sentences. What was found several times at one kind
// of step on one table is said once.
func (p *QueryPlan) details() []string {
	type place struct {
		kind        Kind
		step, where string
	}
	index := make(map[place]int)
	var all []string
	var times []int
	for _, f := range p.Findings {
		at := place{f.Kind, f.Step, f.Table}
		if f.Table == "" {
			at.where = f.Detail
		}
		i, known := index[at]
		if !known {
			i = len(all)
			index[at] = i
			all, times = append(all, f.Detail), append(times, 0)
		}
		times[i]++
	}
	for i, n := range times {
		if n > 1 {
			all[i] += fmt.Sprintf(" (%d times)", n)
		}
	}
	return all
}

func (p *QueryPlan) size() int {
	if p == nil {
		return 0
	}
	n := int(unsafe.Sizeof(*p)) + len(p.Text) + len(p.Node)
	for _, f := range p.Findings {
		n += int(unsafe.Sizeof(f)) + len(f.Step) + len(f.Table) + len(f.Detail)
	}
	return n
}

func (p *QueryPlan) fullScan(step, table string, rows int64, kept float64) {
	f := Finding{Kind: SequentialScan, Step: step, Table: table, Rows: rows}
	switch {
	case rows < 0:
		f.Detail = fmt.Sprintf("%s reads the whole of %s", step, table)
	case kept >= 0:
		f.Detail = fmt.Sprintf("%s reads the whole of %s, about %d rows, for %.0f", step, table, rows, kept)
	default:
		f.Detail = fmt.Sprintf("%s reads the whole of %s, about %d rows", step, table, rows)
	}
	p.find(f)
}

// redactExpr writes a condition of a plan without its values: the plan of a
// statement with parameters has them in its text.
func redactExpr(expr string) string {
	const prefix = "SELECT "
	text := sqltext.Parse(prefix + expr)
	if shape, ok := strings.CutPrefix(text.Shape, prefix); ok && text.Operation == sqltext.Select {
		return shape
	}
	return "?"
}

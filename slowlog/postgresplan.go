package slowlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// pgStep is what is read of one step of Postgres' JSON. What is not named here is
// dropped, so that no value of the statement comes along; the expressions among
// it are redacted before they are written.
type pgStep struct {
	NodeType      string  `json:"Node Type"`
	Strategy      string  `json:"Strategy"`
	PartialMode   string  `json:"Partial Mode"`
	JoinType      string  `json:"Join Type"`
	Relationship  string  `json:"Parent Relationship"`
	Subplan       string  `json:"Subplan Name"`
	InnerUnique   bool    `json:"Inner Unique"`
	Parallel      bool    `json:"Parallel Aware"`
	Relation      string  `json:"Relation Name"`
	Alias         string  `json:"Alias"`
	Index         string  `json:"Index Name"`
	CTE           string  `json:"CTE Name"`
	Function      string  `json:"Function Name"`
	StartupCost   float64 `json:"Startup Cost"`
	TotalCost     float64 `json:"Total Cost"`
	PlanRows      float64 `json:"Plan Rows"`
	Width         float64 `json:"Plan Width"`
	ActualRows    float64 `json:"Actual Rows"`
	Loops         float64 `json:"Actual Loops"`
	Removed       float64 `json:"Rows Removed by Filter"`
	RemovedByJoin float64 `json:"Rows Removed by Join Filter"`
	SortMethod    string  `json:"Sort Method"`
	SortSpace     int64   `json:"Sort Space Used"` // kB
	SortSpaceType string  `json:"Sort Space Type"`
	HashBatches   int64   `json:"Hash Batches"`
	AggBatches    int64   `json:"HashAgg Batches"`
	DiskUsage     int64   `json:"Disk Usage"` // kB

	IndexCond  string   `json:"Index Cond"`
	Recheck    string   `json:"Recheck Cond"`
	TIDCond    string   `json:"TID Cond"`
	HashCond   string   `json:"Hash Cond"`
	MergeCond  string   `json:"Merge Cond"`
	JoinFilter string   `json:"Join Filter"`
	Filter     string   `json:"Filter"`
	OneTime    string   `json:"One-Time Filter"`
	SortKey    []string `json:"Sort Key"`
	GroupKey   []string `json:"Group Key"`

	Plans []pgStep `json:"Plans"`
}

func parsePostgres(doc []byte) (*pgStep, error) {
	var plans []struct{ Plan *pgStep }
	if err := json.Unmarshal(doc, &plans); err != nil {
		// The error may quote the plan.
		return nil, errors.New("slowlog: the plan is not the JSON of Postgres")
	}
	if len(plans) != 1 || plans[0].Plan == nil || plans[0].Plan.NodeType == "" {
		return nil, errors.New("slowlog: the plan has no steps")
	}
	return plans[0].Plan, nil
}

// scanned returns the tables that are read whole, each once.
func (s *pgStep) scanned() []string {
	var tables []string
	s.walk(0, false, func(s *pgStep, _ int, _ bool) {
		if s.NodeType == "Seq Scan" && s.Relation != "" && !slices.Contains(tables, s.Relation) {
			tables = append(tables, s.Relation)
		}
	})
	return tables
}

// walk visits the steps as Postgres prints them. early: the step may have been
// stopped before its end, by a Limit or a join that needs one match.
func (s *pgStep) walk(depth int, early bool, visit func(s *pgStep, depth int, early bool)) {
	left := maxSteps
	var down func(s *pgStep, depth int, early bool)
	down = func(s *pgStep, depth int, early bool) {
		if left--; left < 0 || depth > maxNesting {
			return
		}
		visit(s, depth, early)
		for i := range s.Plans {
			p := &s.Plans[i]
			stops := s.NodeType == "Limit" || s.NodeType == "Merge Join" || p.Relationship == "SubPlan" || p.Relationship == "InitPlan" ||
				p.Relationship == "Inner" && (s.InnerUnique || s.JoinType == "Semi" || s.JoinType == "Anti")
			down(p, depth+1, early || stops)
		}
	}
	down(s, depth, early)
}

func (s *pgStep) plan(analyzed bool, sizes map[string]int64) *QueryPlan {
	p := &QueryPlan{Analyzed: analyzed}
	var b strings.Builder
	s.walk(0, false, func(s *pgStep, depth int, early bool) {
		if b.Len() <= maxPlanText {
			s.write(&b, depth, analyzed)
		}
		s.judge(p, early, analyzed, sizes)
	})
	p.Text = cut(strings.TrimSuffix(b.String(), "\n"), maxPlanText)
	return p
}

// judge finds what is conspicuous about one step.
func (s *pgStep) judge(p *QueryPlan, early, analyzed bool, sizes map[string]int64) {
	name := s.name()
	if s.NodeType == "Seq Scan" {
		size, known := sizes[s.Relation]
		if !known || size < 0 {
			size = -1 // never analysed
		}
		if size < 0 || size >= smallTable {
			p.fullScan(name, s.Relation, size, s.PlanRows)
		}
	}
	if !analyzed || s.Loops == 0 {
		return
	}
	more, less := s.ActualRows >= wrongFactor*max(s.PlanRows, 1), s.PlanRows >= wrongFactor*max(s.ActualRows, 1)
	if max(s.ActualRows, s.PlanRows) >= fewRows && (more || less && !early) {
		p.find(Finding{
			Kind: WrongEstimate, Step: name, Table: s.Relation, Rows: int64(s.ActualRows),
			Detail: fmt.Sprintf("%s gave %.0f rows where %.0f were expected", s.title(), s.ActualRows, s.PlanRows),
		})
	}
	removed, kept := s.Removed*s.Loops, s.ActualRows*s.Loops
	if removed >= smallTable && removed >= (wrongFactor-1)*kept {
		p.find(Finding{
			Kind: RowsRemoved, Step: name, Table: s.Relation, Rows: int64(removed),
			Detail: fmt.Sprintf("%s threw away %.0f of the %.0f rows that it read", s.title(), removed, removed+kept),
		})
	}
	switch {
	case s.SortSpaceType == "Disk":
		p.find(Finding{Kind: Spill, Step: name, Rows: -1, Detail: fmt.Sprintf("%s wrote %d kB to disk", name, s.SortSpace)})
	case s.DiskUsage > 0 || s.AggBatches > 1:
		p.find(Finding{Kind: Spill, Step: name, Rows: -1, Detail: fmt.Sprintf("%s wrote %d kB to disk in %d batches", name, s.DiskUsage, s.AggBatches)})
	case s.HashBatches > 1:
		p.find(Finding{Kind: Spill, Step: name, Rows: -1, Detail: fmt.Sprintf("%s went to disk in %d batches", name, s.HashBatches)})
	}
}

// name is the step as Postgres' own text calls it.
func (s *pgStep) name() string {
	n := s.NodeType
	switch {
	case n == "Aggregate" && s.Strategy == "Hashed":
		n = "HashAggregate"
	case n == "Aggregate" && s.Strategy == "Sorted":
		n = "GroupAggregate"
	case s.JoinType != "" && s.JoinType != "Inner":
		n = strings.TrimSuffix(n, " Join") + " " + s.JoinType + " Join"
	}
	if s.PartialMode == "Partial" || s.PartialMode == "Finalize" {
		n = s.PartialMode + " " + n
	}
	if s.Parallel {
		n = "Parallel " + n
	}
	return n
}

func (s *pgStep) title() string {
	t := s.name()
	if s.Index != "" {
		t += " using " + s.Index
	}
	switch on := firstOf(s.Relation, s.CTE, s.Function); {
	case on != "" && s.Alias != "" && s.Alias != on:
		t += " on " + on + " " + s.Alias
	case on != "":
		t += " on " + on
	}
	return t
}

func firstOf(names ...string) string {
	for _, n := range names {
		if n != "" {
			return n
		}
	}
	return ""
}

func (s *pgStep) write(b *strings.Builder, depth int, analyzed bool) {
	indent := strings.Repeat("      ", depth)
	if s.Subplan != "" {
		fmt.Fprintf(b, "%s%s\n", indent, s.Subplan)
	}
	arrow := indent
	if depth > 0 {
		arrow = indent[:len(indent)-4] + "->  "
	}
	fmt.Fprintf(b, "%s%s  (cost=%.2f..%.2f rows=%.0f width=%.0f)", arrow, s.title(), s.StartupCost, s.TotalCost, s.PlanRows, s.Width)
	switch {
	case analyzed && s.Loops == 0:
		b.WriteString(" (never executed)")
	case analyzed:
		fmt.Fprintf(b, " (actual rows=%.0f loops=%.0f)", s.ActualRows, s.Loops)
	}
	b.WriteByte('\n')
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(b, "%s  %s: %s\n", indent, label, value)
		}
	}
	for _, c := range []struct{ label, expr string }{
		{"Index Cond", s.IndexCond}, {"Recheck Cond", s.Recheck}, {"TID Cond", s.TIDCond}, {"Hash Cond", s.HashCond},
		{"Merge Cond", s.MergeCond}, {"Join Filter", s.JoinFilter}, {"Filter", s.Filter}, {"One-Time Filter", s.OneTime},
		{"Sort Key", strings.Join(s.SortKey, ", ")}, {"Group Key", strings.Join(s.GroupKey, ", ")},
	} {
		if c.expr != "" {
			line(c.label, redactExpr(c.expr))
		}
	}
	if s.Removed > 0 {
		line("Rows Removed by Filter", fmt.Sprintf("%.0f", s.Removed))
	}
	if s.RemovedByJoin > 0 {
		line("Rows Removed by Join Filter", fmt.Sprintf("%.0f", s.RemovedByJoin))
	}
	if s.SortMethod != "" {
		line("Sort Method", fmt.Sprintf("%s  %s: %dkB", s.SortMethod, s.SortSpaceType, s.SortSpace))
	}
	if s.HashBatches > 1 {
		line("Batches", fmt.Sprint(s.HashBatches))
	}
	if s.DiskUsage > 0 {
		line("Disk Usage", fmt.Sprintf("%dkB", s.DiskUsage))
	}
}

package run

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// Span is a time, in the machine's nanoseconds; see package clock.
type Span struct{ From, To int64 }

// Happened holds when each fault happened, by its name.
type Happened map[string][]Span

// Traffic is one operation, as far as faults meet it.
type Traffic struct {
	Start, End int64
	Failed     bool // it was not acknowledged
	Unended    bool // nobody waited for its end
}

// Met is what a fault met.
type Met struct {
	Name       string  `json:"name"`
	Times      int     `json:"times"`
	Idle       int     `json:"times_without_traffic"`
	Seconds    float64 `json:"seconds"`
	Operations int     `json:"operations"` // that overlapped it, each once
	Failed     int     `json:"failed"`     // of these
	SlowestMS  float64 `json:"slowest_ms"` // of these
}

// Meet holds a fault's times against n operations. at returns one of them; counts
// is false for what is no traffic.
func Meet(name string, spans []Span, n int, at func(i int) (t Traffic, counts bool)) Met {
	m := Met{Name: name, Times: len(spans)}
	met := make([]bool, len(spans))
	for i := range n {
		t, counts := at(i)
		if !counts {
			continue
		}
		overlaps := false
		for j, s := range spans {
			if t.Start <= s.To && s.From <= t.End {
				overlaps, met[j] = true, true
			}
		}
		if !overlaps {
			continue
		}
		m.Operations++
		if t.Failed {
			m.Failed++
		}
		if !t.Unended {
			m.SlowestMS = max(m.SlowestMS, seconds(t.End-t.Start)*1e3)
		}
	}
	for j, s := range spans {
		m.Seconds += seconds(s.To - s.From)
		if !met[j] {
			m.Idle++
		}
	}
	return m
}

// NoProof says why the fault shows nothing; empty when it does.
func (m *Met) NoProof() string {
	switch {
	case m.Times == 0:
		return "fault " + m.Name + " did not come to happen"
	case m.Idle == m.Times:
		return "fault " + m.Name + " met no traffic"
	case m.Idle > 0:
		return fmt.Sprintf("fault %s met no traffic %d of %d times", m.Name, m.Idle, m.Times)
	}
	return ""
}

// Print writes a line of a table.
func (m *Met) Print(w io.Writer) {
	fmt.Fprintf(w, "fault %s\t%d times, %.1f s\t%d operations, %d failed\tslowest %.0f ms\n", m.Name, m.Times, m.Seconds, m.Operations, m.Failed, m.SlowestMS)
}

// Counts holds how many operations there were, by kind and status.
type Counts map[string]map[string]int

// Add counts one.
func (c Counts) Add(kind, status string) {
	by := c[kind]
	if by == nil {
		by = map[string]int{}
		c[kind] = by
	}
	by[status]++
}

// Print writes a line of a table for each kind that there was.
func (c Counts) Print(w io.Writer, kinds, statuses []string) {
	for _, k := range kinds {
		by := c[k]
		if by == nil {
			continue
		}
		fmt.Fprintf(w, "%s", k)
		for _, s := range statuses {
			if by[s] > 0 {
				fmt.Fprintf(w, "\t%d %s", by[s], s)
			}
		}
		fmt.Fprintln(w)
	}
}

// PrintVerdict writes the errors of operations by their text, why the run does not
// count, how often which rule was broken, and the shortest violations.
func PrintVerdict(out io.Writer, errors map[string]int, noProof, rules []string, violations map[string]int, shortest []string) {
	for _, text := range slices.Sorted(maps.Keys(errors)) {
		fmt.Fprintf(out, "%4d × %s\n", errors[text], text)
	}
	for _, what := range noProof {
		fmt.Fprintln(out, "does not count:", what)
	}
	if len(violations) == 0 {
		fmt.Fprintln(out, "violations 0")
		return
	}
	for _, rule := range rules {
		if n := violations[rule]; n > 0 {
			fmt.Fprintf(out, "VIOLATIONS of «%s»: %d\n", rule, n)
		}
	}
	for _, text := range shortest {
		fmt.Fprintln(out, " ", text)
	}
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

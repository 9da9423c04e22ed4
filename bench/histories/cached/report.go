package cached

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
)

// A run shows something only with these shares: of the cacheable reads that were
// hits, and of the fills that came from replicas.
const (
	leastHits  = 0.50
	leastFills = 0.30
)

// Summary is what a run showed.
type Summary struct {
	Seed       uint64     `json:"seed"`
	Seconds    float64    `json:"seconds"`
	Operations run.Counts `json:"operations"` // by kind and status
	Total      int        `json:"operations_total"`
	PerSecond  float64    `json:"operations_per_second"`
	Instances  int        `json:"instances"` // lives of workers

	// Cacheable reads that were answered, by where the answer came from.
	Cacheable    int            `json:"cacheable_reads"`
	Sources      map[string]int `json:"cacheable_reads_from"`
	Hits         float64        `json:"share_of_hits"`
	HitsL1       float64        `json:"share_of_l1"`
	HitsL2       float64        `json:"share_of_l2"`
	Fills        int            `json:"fills"`
	FromReplicas int            `json:"fills_from_replicas"`
	FillShare    float64        `json:"share_of_fills_from_replicas"`
	// Untold writes are those of which Redis may not have been told.
	Untold int `json:"writes_redis_may_not_know"`
	// Unseen writes were cut off, and nobody knows whether they happened.
	Unknown  int            `json:"writes_of_unknown_outcome"`
	Exempt   int            `json:"cached_reads_after_a_restore"` // not judged
	Bypasses map[string]int `json:"bypasses"`                     // by reason, of those who lived
	// Failovers of Redis, and those of them that no fault had asked for.
	Failovers int `json:"failovers"`
	Unasked   int `json:"failovers_unasked"`

	Faults     []run.Met      `json:"faults"`
	Errors     map[string]int `json:"errors"` // of operations, by kind and text
	Violations map[string]int `json:"violations"`
	Shortest   []string       `json:"shortest"`
	// NoProof says why the run does not count; empty when it does.
	NoProof []string `json:"does_not_count"`
}

func (p *parent) summarize(found []violation) *Summary {
	sum := summarize(p.settings, p.h, p.happened, found)
	for _, w := range p.lives {
		for text, n := range w.refusals {
			sum.Errors[text] += n
		}
		if w.stats != nil {
			for why, n := range w.stats.Bypasses {
				sum.Bypasses[why] += int(n)
			}
		}
	}
	return sum
}

func summarize(s Settings, h *history, happened run.Happened, found []violation) *Summary {
	sum := &Summary{
		Seed: s.Seed, Instances: len(h.instances), Operations: run.Counts{}, Sources: map[string]int{},
		Errors: map[string]int{}, Bypasses: map[string]int{}, Violations: map[string]int{},
	}
	sum.count(h)
	sum.Failovers, sum.Unasked, sum.NoProof = h.failovers, h.unasked, slices.Clone(h.noProof)
	for _, f := range s.faults {
		met := run.Meet(f.Name, happened[f.Name], len(h.ops), func(i int) (run.Traffic, bool) {
			o := &h.ops[i]
			return run.Traffic{Start: o.Start, End: o.End, Failed: o.Status != done}, !o.Kind.interim() && o.Kind != kindProbe
		})
		sum.Faults = append(sum.Faults, met)
		if why := met.NoProof(); why != "" {
			sum.NoProof = append(sum.NoProof, why)
		}
	}
	hits := sum.share(fromL1, fromL2, fromShared)
	hits.Least, hits.What = leastHits, "of the cacheable reads were hits"
	fills := run.Share{Part: sum.FromReplicas, Whole: sum.Fills, Least: leastFills, What: "of the fills came from replicas"}
	sum.Hits, sum.HitsL1, sum.HitsL2 = hits.Value(), sum.share(fromL1).Value(), sum.share(fromL2).Value()
	sum.FillShare = fills.Value()
	for _, share := range []run.Share{hits, fills} {
		if why := share.NoProof(); why != "" {
			sum.NoProof = append(sum.NoProof, why)
		}
	}
	if int64(sum.Total) < s.Ops {
		sum.NoProof = append(sum.NoProof, fmt.Sprintf("the time was over after %d of %d operations", sum.Total, s.Ops))
	}
	for _, v := range found {
		if sum.Violations[v.rule]++; sum.Violations[v.rule] == 1 {
			sum.Shortest = append(sum.Shortest, v.tell()+during(happened, v.ops))
		}
	}
	return sum
}

func (v *violation) tell() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", v.rule, v.what)
	for _, o := range v.ops {
		fmt.Fprintf(&b, "\n    %s", o.tell(v.row))
	}
	return b.String()
}

// during names the faults that overlapped the operations, and how long before the
// last one's start the others had ended, if that was not long.
func during(happened run.Happened, ops []*op) string {
	if len(ops) == 0 {
		return ""
	}
	var names []string
	from, last := ops[0].Start, ops[len(ops)-1]
	for _, name := range slices.Sorted(maps.Keys(happened)) {
		for _, s := range happened[name] {
			switch ago := last.Start - s.To; {
			case s.From <= last.End && from <= s.To && ago < 0:
				names = append(names, name)
			case ago >= 0 && ago < int64(3*time.Second):
				names = append(names, fmt.Sprintf("%.0f ms after %s", seconds(ago)*1e3, name))
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "\n    " + strings.Join(names, ", ")
}

// count needs the operations in the order of their starts.
func (sum *Summary) count(h *history) {
	first, last := int64(0), int64(0)
	for i := range h.ops {
		o := &h.ops[i]
		if i == 0 {
			first = o.Start
		}
		last = max(last, o.End)
		if o.Kind.interim() {
			continue
		}
		sum.Total++
		sum.Operations.Add(o.Kind.String(), o.Status.String())
		switch {
		case o.Kind.writes() && o.has(untold):
			sum.Untold++
		case o.Kind.cacheable() && o.Status == done && !o.has(skipped):
			sum.countRead(h, o)
		}
	}
	for _, w := range h.index().writes {
		if outcome(w) == unknown {
			sum.Unknown++
		}
	}
	sum.Seconds = seconds(last - first)
	sum.PerSecond = float64(sum.Total) / max(sum.Seconds, 1e-9)
}

// share is that of the cacheable reads whose answers came from there.
func (sum *Summary) share(of ...source) run.Share {
	s := run.Share{Whole: sum.Cacheable}
	for _, from := range of {
		s.Part += sum.Sources[from.String()]
	}
	return s
}

func (sum *Summary) countRead(h *history, o *op) {
	sum.Cacheable++
	sum.Sources[o.From.String()]++
	if o.From == fromFill {
		sum.Fills++
		if o.has(standby) {
			sum.FromReplicas++
		}
	}
	if h.exempt(o) {
		sum.Exempt++
	}
}

// Print writes it for people.
func (sum *Summary) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "seed\t%d\n", sum.Seed)
	sum.Operations.Print(w, kindNames[:], statusNames[:])
	fmt.Fprintf(w, "in all\t%d operations\t%.0f/s for %v\n", sum.Total, sum.PerSecond, time.Duration(sum.Seconds*1e9).Round(10*time.Millisecond))
	fmt.Fprintf(w, "instances\t%d\n", sum.Instances)
	fmt.Fprintf(w, "cacheable reads\t%d\t%.1f %% hits (L1 %.1f %%, L2 %.1f %%)\t%s\n", sum.Cacheable, 100*sum.Hits, 100*sum.HitsL1, 100*sum.HitsL2, list(sum.Sources))
	fmt.Fprintf(w, "fills\t%d\t%.1f %% from replicas\n", sum.Fills, 100*sum.FillShare)
	fmt.Fprintf(w, "writes\t%d that Redis may not know of\t%d of unknown outcome\n", sum.Untold, sum.Unknown)
	fmt.Fprintf(w, "failovers\t%d of Redis\t%d by no fault of the run\n", sum.Failovers, sum.Unasked)
	fmt.Fprintf(w, "not judged\t%d cached reads while older data of Redis was back\n", sum.Exempt)
	fmt.Fprintf(w, "bypasses\t%s\n", list(sum.Bypasses))
	for _, met := range sum.Faults {
		met.Print(w)
	}
	_ = w.Flush()
	run.PrintVerdict(out, sum.Errors, sum.NoProof, rules, sum.Violations, sum.Shortest)
}

func list(counts map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(parts, ", ")
}

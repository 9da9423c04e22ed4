package main

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

// leastShare is the part of the read-backs that replicas must serve for a run to
// show anything.
const leastShare = 0.30

// summary is what a run showed.
type summary struct {
	Seed       uint64     `json:"seed"`
	Seconds    float64    `json:"seconds"`
	Operations run.Counts `json:"operations"` // by kind and status
	PerSecond  float64    `json:"operations_per_second"`
	Sessions   int        `json:"sessions"`
	Carried    int        `json:"operations_after_a_token"`

	// A read-back is an answered read of a cell that its session had written.
	ReadBacks          int     `json:"read_backs"`
	ReadBacksPerSecond float64 `json:"read_backs_per_second"`
	FromReplicas       int     `json:"read_backs_from_replicas"`
	Share              float64 `json:"share_from_replicas"`

	// Decisions of the plugin, by reason.
	Decisions map[string]uint64 `json:"decisions"`
	// Early counts commits under way that a standby showed before the primary.
	Early int `json:"commits_shown_early"`
	// Killed workers, the writes that were under way in them, and the reads in
	// other processes of sessions that they had begun and handed over.
	Killed   int `json:"killed_workers"`
	CutOff   int `json:"writes_under_way_at_kills"`
	Orphaned int `json:"reads_of_sessions_of_killed_workers"`

	// PageCommits ended where a page of WAL ends.
	PageCommits int            `json:"commits_at_page_ends"`
	Faults      []run.Met      `json:"faults"`
	Errors      map[string]int `json:"errors"` // of operations, by kind and text
	Violations  map[string]int `json:"violations"`
	Shortest    []string       `json:"shortest"`
	// NoProof says why the run does not count; empty when it does.
	NoProof []string `json:"does_not_count"`

	found []violation
}

// summarize needs the operations in the order of their starts.
func summarize(s settings, h *history, happened run.Happened, found []violation) *summary {
	sum := &summary{Seed: s.seed, Operations: run.Counts{}, Violations: map[string]int{}, Decisions: h.reasons, Errors: h.refusals, found: found}
	sum.count(h)
	sum.NoProof = slices.Clone(h.noProof)
	for _, f := range s.faults {
		met := run.Meet(f.Name, happened[f.Name], len(h.ops), func(i int) (run.Traffic, bool) {
			o := &h.ops[i]
			return run.Traffic{Start: o.Start, End: o.End, Failed: o.Status != done, Unended: o.has(begun)}, true
		})
		sum.Faults = append(sum.Faults, met)
		switch why := met.NoProof(); {
		case why != "":
			sum.NoProof = append(sum.NoProof, why)
		case f.Name == "page" && sum.PageCommits == 0:
			sum.NoProof = append(sum.NoProof, "no commit ended at a page's end")
		case f.Name == "kill-worker" && sum.Orphaned == 0:
			sum.NoProof = append(sum.NoProof, "no session of a killed worker went on in another one")
		}
	}
	share := run.Share{Part: sum.FromReplicas, Whole: sum.ReadBacks, Least: leastShare, What: "of the read-backs came from replicas"}
	if sum.Share = share.Value(); share.NoProof() != "" {
		sum.NoProof = append(sum.NoProof, share.NoProof())
	}
	if int64(sum.ReadBacks) < s.ops {
		sum.NoProof = append(sum.NoProof, fmt.Sprintf("the time was over after %d of %d read-backs", sum.ReadBacks, s.ops))
	}
	for _, v := range found {
		if sum.Violations[v.rule]++; sum.Violations[v.rule] == 1 {
			sum.Shortest = append(sum.Shortest, v.tell())
		}
	}
	return sum
}

func (v *violation) tell() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", v.rule, v.what)
	for _, o := range v.ops {
		fmt.Fprintf(&b, "\n    %s", o)
	}
	return b.String()
}

// count needs the operations in the order of their starts.
func (sum *summary) count(h *history) {
	first, last := int64(0), int64(0)
	sessions := map[uint64]bool{}
	type written struct {
		session uint64 // or the worker, without scopes
		cell    uint32
	}
	since := map[written]int64{} // the first acknowledgement
	for i := range h.ops {
		o := &h.ops[i]
		if i == 0 {
			first = o.Start
		}
		if !o.has(begun) {
			last = max(last, o.End)
		}
		sessions[o.Session] = true
		if o.has(carried) {
			sum.Carried++
		}
		if o.has(begun) {
			sum.CutOff++
		}
		if at := h.killed[workerOf(o.Session)]; at != 0 && o.has(carried) && o.Start > at && o.Status == done && o.Kind.reads() {
			sum.Orphaned++
		}
		sum.Operations.Add(o.Kind.String(), o.Status.String())
		key := written{o.Session, o.Cell}
		switch {
		case o.Status != done:
		case o.Kind.writes():
			if at, ok := since[key]; !ok || o.End < at {
				since[key] = o.End
			}
			if o.Kind == kindPage && o.has(boundary) {
				sum.PageCommits++
			}
		case o.Kind.reads():
			if at, ok := since[key]; ok && at <= o.Start {
				sum.ReadBacks++
				if o.has(standby) {
					sum.FromReplicas++
				}
			}
		}
	}
	sum.Sessions, sum.Killed = len(sessions), len(h.killed)
	sum.Seconds = seconds(last - first)
	sum.PerSecond = float64(len(h.ops)) / max(sum.Seconds, 1e-9)
	sum.ReadBacksPerSecond = float64(sum.ReadBacks) / max(sum.Seconds, 1e-9)
}

func (sum *summary) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "seed\t%d\n", sum.Seed)
	sum.Operations.Print(w, kindNames[:], statusNames[:])
	fmt.Fprintf(w, "in all\t%.0f operations/s for %v\n", sum.PerSecond, time.Duration(sum.Seconds*1e9).Round(10*time.Millisecond))
	fmt.Fprintf(w, "sessions\t%d\t%d operations after a token\n", sum.Sessions, sum.Carried)
	fmt.Fprintf(w, "read-backs\t%d\t%.1f %% from replicas\t%.0f/s\n", sum.ReadBacks, 100*sum.Share, sum.ReadBacksPerSecond)
	if sum.Early > 0 {
		fmt.Fprintf(w, "shown early\t%d commits, by a standby before the primary, and not yet acknowledged\n", sum.Early)
	}
	fmt.Fprintf(w, "page-end commits\t%d\n", sum.PageCommits)
	if sum.Killed > 0 {
		fmt.Fprintf(w, "killed workers\t%d\t%d writes were under way\t%d reads of their sessions elsewhere\n", sum.Killed, sum.CutOff, sum.Orphaned)
	}
	var reasons []string
	for _, why := range slices.Sorted(maps.Keys(sum.Decisions)) {
		reasons = append(reasons, fmt.Sprintf("%s %d", why, sum.Decisions[why]))
	}
	fmt.Fprintf(w, "decisions\t%s\n", strings.Join(reasons, ", "))
	for _, met := range sum.Faults {
		met.Print(w)
	}
	_ = w.Flush()
	run.PrintVerdict(out, sum.Errors, sum.NoProof, rules, sum.Violations, sum.Shortest)
}

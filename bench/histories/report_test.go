package main

import (
	"strings"
	"testing"

	"github.com/gorminfra/infra/bench/histories/run"
)

func TestRunCountsOnlyWithReplicasTrafficAndFaults(t *testing.T) {
	t.Parallel()
	s := settings{ops: 2, faults: []fault{{Name: "pause"}}}
	fromReplicas := func() *history {
		return base().with(readOf(1, 30, 40, 1, 0xa, standby), readOf(1, 50, 60, 1, 0xa, 0))
	}
	met := run.Happened{"pause": {{From: 35, To: 55}}}
	for _, c := range []struct {
		name     string
		h        *history
		happened run.Happened
		want     string // of what does not count; empty: it counts
	}{
		{"it counts", fromReplicas(), met, ""},
		{"too few read-backs", base().with(readOf(1, 30, 40, 1, 0xa, standby)), met, "time was over after 1 of 2"},
		{"all from the primary", base().with(readOf(1, 30, 40, 1, 0xa, 0), readOf(1, 50, 60, 1, 0xa, 0)), met, "0.0 % of the read-backs"},
		{"a fault without traffic", fromReplicas(), run.Happened{"pause": {{From: 100, To: 200}}}, "met no traffic"},
		{"a fault that did not happen", fromReplicas(), nil, "did not come to happen"},
		{"a server that changed of itself", func() *history {
			h := fromReplicas()
			h.noProof = []string{"node1 was one and became another"}
			return h
		}(), met, "node1 was one and became another"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(summarize(s, c.h, c.happened, nil).NoProof, "; ")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("does not count: %q, want %q", got, c.want)
			}
		})
	}
}

// Command ratios measures what the plugin promises in numbers, against its peers,
// in one run on this machine:
//
//	go run -C bench ./ratios [-area routing|cache|limits|insight|all] [-json]
//
// Both sides of a row run in turns; a row gives the median of the rounds and the
// 95 % interval of that median. It starts its own servers. It exits with 0 also
// where a goal is missed: it measures, and judges nobody.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
)

// row is one goal with its present value.
type row struct {
	Area  string  `json:"area"`
	Name  string  `json:"name"`
	Unit  string  `json:"unit"` // of value and goal: "ns above", "x", …
	Ours  float64 `json:"ours_ns"`
	Peer  float64 `json:"peer_ns"`
	Than  string  `json:"peer"`
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Goal  float64 `json:"goal"`
	// AtLeast: the goal is a lower bound.
	AtLeast    bool    `json:"at_least"`
	OursAllocs float64 `json:"ours_allocs"`
	PeerAllocs float64 `json:"peer_allocs"`
	Pass       bool    `json:"pass"`
}

// area is a group of rows that need the same servers.
type area struct {
	name string
	run  func(context.Context) ([]row, error)
}

var areas = []area{
	{"routing", routing},
	{"routing", overhead},
	{"cache", cache},
	{"limits", limits},
	{"insight", insight},
}

func main() {
	only := flag.String("area", "all", "routing, cache, limits, insight or all")
	asJSON := flag.Bool("json", false, "print the rows as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rows, err := run(ctx, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		_ = enc.Encode(rows)
		return
	}
	printTable(rows)
}

func run(ctx context.Context, only string) ([]row, error) {
	if only != "all" && !slices.ContainsFunc(areas, func(a area) bool { return a.name == only }) {
		return nil, fmt.Errorf("-area is %q: must be routing, cache, limits, insight or all", only)
	}
	var rows []row
	for _, a := range areas {
		if only != "all" && only != a.name {
			continue
		}
		rs, err := a.run(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		for i := range rs {
			rs[i].Area = a.name
		}
		rows = append(rows, rs...)
	}
	return rows, nil
}

// atMostAbove is a row whose goal is at most goal nanoseconds above the peer.
func atMostAbove(name, than string, p pair, goal float64) row {
	return p.row(name, than, "ns above", p.above(), goal, false)
}

// atMost is a row whose goal is at most goal times the peer.
func atMost(name, than string, p pair, goal float64) row {
	return p.row(name, than, "x peer", p.ratio(), goal, false)
}

// atLeast is a row whose goal is to be at least goal times as fast as the peer.
func atLeast(name, than string, p pair, goal float64) row {
	return p.row(name, than, "x faster", p.inverse(), goal, true)
}

// atMostNanos is a row whose goal is an absolute time.
func atMostNanos(name string, p pair, goal float64) row {
	return p.row(name, "an empty call", "ns", medianOf(p.ours), goal, false)
}

// counted is a row whose value is no comparison of times. It has no sides.
func counted(name, than, unit string, v interval, goal float64, lower bool) row {
	return row{
		Name: name, Unit: unit, Than: than, Value: v.median, Low: v.low, High: v.high, Goal: goal, AtLeast: lower,
		Pass: lower && v.median >= goal || !lower && v.median <= goal,
	}
}

func (p pair) row(name, than, unit string, v interval, goal float64, lower bool) row {
	return row{
		Name: name, Unit: unit, Than: than, Ours: medianOf(p.ours).median, Peer: medianOf(p.peer).median,
		Value: v.median, Low: v.low, High: v.high, Goal: goal, AtLeast: lower,
		OursAllocs: p.oursAllocs, PeerAllocs: p.peerAllocs,
		Pass: lower && v.median >= goal || !lower && v.median <= goal,
	}
}

func printTable(rows []row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "area\trow\tours\tpeer\tpeer is\tvalue\t95 %\tgoal\tallocs\tpass")
	for _, r := range rows {
		bound, pass := "≤", "no"
		if r.AtLeast {
			bound = "≥"
		}
		if r.Pass {
			pass = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.4g %s\t%.4g–%.4g\t%s %.4g\t%.1f/%.1f\t%s\n", r.Area, r.Name, nanos(r.Ours), nanos(r.Peer), r.Than,
			r.Value, r.Unit, r.Low, r.High, bound, r.Goal, r.OursAllocs, r.PeerAllocs, pass)
	}
	_ = w.Flush()
}

func nanos(ns float64) string {
	switch {
	case ns == 0:
		return "-"
	case ns >= 1e6:
		return strings.TrimSpace(fmt.Sprintf("%.2f ms", ns/1e6))
	case ns >= 1e3:
		return fmt.Sprintf("%.2f µs", ns/1e3)
	}
	return fmt.Sprintf("%.1f ns", ns)
}

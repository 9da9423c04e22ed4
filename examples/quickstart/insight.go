package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorminfra/infra"
)

// reports keeps what the detector has to say until it is printed.
type reports struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

var _ io.Writer = (*reports)(nil)

func (r *reports) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *reports) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.text.Reset()
	return r.text.String()
}

// soon waits until f holds: some things are told right after an answer.
func (v visit) soon(f func() bool) bool {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && v.ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return false
}

func (v visit) nPlusOne() error {
	_ = v.reports.take()
	loop, err := v.ok("GET", "/orders", "cid")
	if err != nil {
		return err
	}
	var text string
	if !v.soon(func() bool { text += v.reports.take(); return text != "" }) {
		return errors.New("the loop was not reported")
	}
	fmt.Println(indent(strings.TrimSpace(text)))
	if !strings.Contains(text, `Preload("Customer")`) || !strings.Contains(text, "shop.go:") {
		return errors.New("the report names no fix or no line of code")
	}
	preloaded, err := v.ok("GET", "/orders/preloaded", "cid")
	if err != nil {
		return err
	}
	for _, r := range []struct {
		path  string
		reply reply
		found string
	}{{"/orders", loop, "1"}, {"/orders/preloaded", preloaded, "0"}} {
		queries, found := r.reply.header.Get(infra.HeaderQueryCount), r.reply.header.Get(infra.HeaderNPlusOne)
		fmt.Printf("\n   GET %-18s %3s statements, %s finding(s)", r.path, queries, found)
		if found != r.found {
			return fmt.Errorf("GET %s: %s is %q, want %s", r.path, infra.HeaderNPlusOne, found, r.found)
		}
	}
	fmt.Println()
	return nil
}

func (v visit) slow() error {
	if _, err := v.ok("GET", "/bestsellers", "ann"); err != nil {
		return err
	}
	planned := func() bool {
		entries := v.plugin.SlowLog().Entries()
		return len(entries) > 0 && entries[0].Plan != nil
	}
	if !v.soon(planned) {
		return fmt.Errorf("no slow statement with a plan: %+v", v.plugin.SlowLog().Stats())
	}
	e := v.plugin.SlowLog().Entries()[0]
	fmt.Printf("   %v in %s\n   at %s\n   %s\n\n", e.Duration.Round(time.Millisecond), e.Route, e.Site, e.Shape)
	fmt.Println(indent(strings.TrimSpace(e.Plan.Text)))
	for _, f := range e.Plan.Findings {
		fmt.Printf("   ! %s\n", f.Detail)
	}
	return nil
}

// where adds up what the parts counted. SQLite is one node, and no replica is
// pretended.
func (v visit) where() error {
	sum := 0
	for _, n := range v.plugin.Resolver().Nodes() {
		for _, reason := range slices.Sorted(maps.Keys(n.Decisions)) {
			fmt.Printf("   %-10s %5d statements and transactions (%s)\n", n.Name, n.Decisions[reason], reason)
			sum += int(n.Decisions[reason])
		}
	}
	c, l := v.plugin.Cache().Stats(), v.plugin.Limits().Stats()
	fmt.Printf("   %-10s %5d hits, %d misses, %d entries\n", "cache", c.L1Hits, c.Misses, c.Entries)
	fmt.Printf("   %-10s %5d admitted, %d refused\n", "limits", l.Admitted, l.RefusedUser+l.RefusedGlobal)
	if sum == 0 || c.L1Hits == 0 || l.RefusedUser == 0 {
		return errors.New("the counters do not show what happened")
	}
	return nil
}

func (v visit) metrics() error {
	r, err := v.do(http.MethodGet, "/metrics", "")
	if err != nil {
		return err
	}
	for _, name := range []string{
		"infra_statements_total", "infra_cache_hits_total", "infra_cache_misses_total", "infra_limit_refused_total",
		"infra_slow_statements_total", "infra_nplusone_findings_total", "infra_pool_in_use_connections",
	} {
		found := false
		for line := range strings.Lines(r.body) {
			if strings.HasPrefix(line, name) && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
				fmt.Printf("   %s", line)
				found = true
			}
		}
		if !found && name != "infra_pool_in_use_connections" {
			return fmt.Errorf("no %s among the metrics", name)
		}
	}
	return nil
}

func indent(text string) string {
	return "   " + strings.ReplaceAll(text, "\n", "\n   ")
}

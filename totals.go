package infra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/limithook"
)

// totals counts what one scope's statements cost.
type totals struct {
	mu      sync.Mutex // guards the rest
	report  Report
	refused *limithook.Error // the last refusal
}

var totalsSlot = scope.NewSlot(func(*scope.Scope) *totals { return &totals{} })

// totalsObserver adds each finished statement to its scope.
type totalsObserver struct{}

var _ hook.Observer = totalsObserver{}

func (totalsObserver) Observe(_ context.Context, r *hook.Record) {
	if r.Scope == nil || r.Background {
		return
	}
	t := totalsSlot.Get(r.Scope)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.add(r)
	if r.Outcome == hook.Refused {
		errors.As(r.Err, &t.refused)
	}
}

// maxNodes bounds the nodes that one report names; the rest are "other".
const maxNodes = 32

func (p *Report) add(r *hook.Record) {
	p.Statements++
	p.DatabaseTime += r.Duration
	switch r.Outcome {
	case hook.L1:
		p.L1Hits++
	case hook.L2:
		p.L2Hits++
	case hook.Shared:
		p.Shared++
	case hook.Refused:
		p.Refused++
	case hook.Database:
		if r.Node == nil {
			break
		}
		name := r.Node.Name
		if p.Nodes == nil {
			p.Nodes = make(map[string]int, 2)
		}
		if _, ok := p.Nodes[name]; !ok && len(p.Nodes) >= maxNodes {
			name = "other"
		}
		p.Nodes[name]++
	}
	if r.Err != nil && r.Outcome != hook.Refused {
		p.Errors++
	}
}

// snapshot returns a copy of what has been counted so far.
func (t *totals) snapshot() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.report
	r.Nodes = maps.Clone(t.report.Nodes)
	return r
}

// lastRefusal is what a limit said last in the scope, or nil.
func (t *totals) lastRefusal() *limithook.Error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused
}

// pools writes the statements by node, in the order of their names.
func (p Report) pools() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(p.Nodes)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%d", name, p.Nodes[name])
	}
	return b.String()
}

// elapsed is how long the scope has been open.
func elapsed(s *scope.Scope) time.Duration { return time.Since(s.Start()) }

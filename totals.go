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

	"gorm.io/gorm"

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

func (r *Report) add(s *hook.Record) {
	r.Statements++
	r.StatementTime += s.Duration - s.Waited
	if s.Lookup == hook.Miss {
		r.CacheMisses++
	}
	switch s.Outcome {
	case hook.L1:
		r.L1Hits++
	case hook.L2:
		r.L2Hits++
	case hook.Shared:
		r.Shared++
	case hook.Refused:
		r.Refused++
	case hook.Database:
		if s.Node == nil {
			break
		}
		name := s.Node.Name
		if r.Nodes == nil {
			r.Nodes = make(map[string]int, 2)
		}
		if _, ok := r.Nodes[name]; !ok && len(r.Nodes) >= maxNodes {
			name = "other"
		}
		r.Nodes[name]++
	}
	if s.Err != nil && s.Outcome != hook.Refused && !errors.Is(s.Err, gorm.ErrRecordNotFound) {
		r.Errors++
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
func (r Report) pools() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(r.Nodes)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%d", name, r.Nodes[name])
	}
	return b.String()
}

// elapsed is how long the scope has been open.
func elapsed(s *scope.Scope) time.Duration { return time.Since(s.Start()) }

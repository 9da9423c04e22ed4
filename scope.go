package infra

import (
	"context"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/nplusone"
)

// Scope is one request or one job: its statements see its own writes, are looked
// at together for N+1 queries, and are counted in one Report. It is safe for
// concurrent use; the goroutines of one request share it.
type Scope struct {
	plugin *Plugin
	scope  *scope.Scope
	joined bool
}

// Report is what a scope cost.
type Report struct {
	// Name is the route or job.
	Name string
	// Duration is the time from Begin to End.
	Duration time.Duration
	// Statements is the number of statements, those answered from a cache and
	// those refused by a limit included.
	Statements int
	// StatementTime is the sum of their own times, without what they waited for
	// limits, for Redis and for each other; of statements that ran at the same
	// time it can exceed Duration.
	StatementTime time.Duration
	// L1Hits, L2Hits and Shared were answered from memory, from Redis, and by
	// the same query of somebody else that was under way.
	L1Hits, L2Hits, Shared int
	// CacheMisses are the statements that the cache was asked for in vain.
	CacheMisses int
	// Refused by a limit.
	Refused int
	// Errors is the number of statements that failed otherwise. Not finding a
	// record is no failure.
	Errors int
	// Nodes is the number of statements that ran on each node.
	Nodes map[string]int
	// NPlusOne is what was found to repeat.
	NPlusOne nplusone.Report
}

// CacheHits is the number of statements that no database was asked for.
func (r Report) CacheHits() int { return r.L1Hits + r.L2Hits + r.Shared }

// Begin opens a scope outside HTTP, for a job or a message. Run the statements
// with the returned context, and call End. A scope that ctx already carries is
// joined: then End reports and leaves the closing to whoever opened it.
func (p *Plugin) Begin(ctx context.Context, name string) (context.Context, *Scope) {
	ctx, s, joined := scope.Begin(ctx, name)
	return ctx, &Scope{plugin: p, scope: s, joined: joined}
}

// SetRoute names the request or job of ctx in reports, logs and metrics from now
// on, for routers whose pattern Middleware cannot see. The name must have few
// values, never the raw path. Without a scope it does nothing.
func SetRoute(ctx context.Context, name string) {
	if s := scope.From(ctx); s != nil {
		s.SetName(name)
	}
}

// End closes the scope and reports. Statements that still use its context
// afterwards run as without a scope. A second call returns the report again.
func (s *Scope) End() Report {
	r := totalsSlot.Get(s.scope).snapshot()
	r.Name, r.Duration = s.scope.Name(), elapsed(s.scope)
	if s.joined {
		r.NPlusOne = s.plugin.nplusone.Report(s.scope)
		return r
	}
	s.scope.End()
	r.NPlusOne = s.plugin.nplusone.Finish(s.scope)
	return r
}

// Package nplusone finds queries that a loop runs once for each row, names the
// Preload that mends them, and the line of code.
//
// Statements are collected per scope: one request or one job. Statements of one
// shape from one place in the code that run at least Threshold times are looked
// at; see [Kind] for what is found. Without a scope nothing is collected.
//
//	detector := nplusone.New(nplusone.Config{Development: true})
//	err := db.Use(detector)
//	…
//	ctx, s := nplusone.Begin(ctx, "GET /posts")
//	listPosts(db.WithContext(ctx))
//	s.End() // prints the report where something was found
//
// [Begin] is for whoever uses this package alone. The plugin that contains it
// opens scopes of its own and asks the Detector for what they hold, by methods
// that take them: [Detector.Report], Count, Statements and Finish.
//
// In tests:
//
//	ctx := nplusone.ForTest(t)
//	listPosts(db.WithContext(ctx))
//	nplusone.AssertNone(t, ctx)
//
// Not findings: the statements of a Preload, the pages of FindInBatches, the
// inserts of CreateInBatches, the retries of this plugin and of a transaction,
// statements that failed, statements of the plugin itself, reads of the system
// catalogue, and a read repeated after its table was written. Nor are answers
// from memory, which cost no round trip; answers from Redis cost one and count.
package nplusone

import (
	"sync"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/scope"
)

// Detector is the plugin. It starts no goroutine. All its methods are safe for
// concurrent use.
type Detector struct {
	cfg     Config
	catalog catalog
	notes   logged
	stats   stats

	mu     sync.Mutex // guards the rest
	used   bool
	closed bool
	remove func()

	output sync.Mutex // one report is written at a time
}

var _ gorm.Plugin = (*Detector)(nil)

// New returns the plugin for db.Use, which reports the faults of cfg.
func New(cfg Config) *Detector {
	return &Detector{cfg: cfg.withDefaults()}
}

// Report tells what s holds so far, or in the end. A nil s gives a zero Report.
// It is for the plugin that contains this package, whose scopes these are; those
// who use the package alone have [Scope.Report].
func (d *Detector) Report(s *scope.Scope) Report {
	return d.report(s, d.cfg.Threshold)
}

func (d *Detector) report(s *scope.Scope, threshold int) Report {
	if t := d.peek(s); t != nil {
		return t.report(threshold)
	}
	return emptyReport(s)
}

// Count returns the number of findings of s so far. It resolves no symbol and
// names no fix, so it is cheap enough for a header of each response. It is for the
// plugin that contains this package; those who use the package alone have
// [Scope.Report], whose Findings can be counted.
func (d *Detector) Count(s *scope.Scope) int {
	if t := d.peek(s); t != nil {
		return t.findings(d.cfg.Threshold)
	}
	return 0
}

// Statements returns the number of statements of s so far: those that were sent
// and those answered from a cache, without the refused ones. It is for the plugin
// that contains this package; those who use the package alone have the Statements
// of [Scope.Report].
func (d *Detector) Statements(s *scope.Scope) int {
	if t := d.peek(s); t != nil {
		return t.seenStatements()
	}
	return 0
}

// Finish makes the report of s when its work is done, and tells of its findings
// once: counters, Config.Output or else the log, Config.OnFinding. A further call
// only returns the report. It is for the plugin that contains this package, which
// opened the scope and calls it before or after the scope's end; for those who use
// the package alone [Scope.End] does both.
func (d *Detector) Finish(s *scope.Scope) Report {
	t := d.peek(s)
	if t == nil {
		return emptyReport(s)
	}
	return d.finish(t)
}

func (d *Detector) finish(t *tracker) Report {
	r := t.report(d.cfg.Threshold)
	if t.finished.CompareAndSwap(false, true) {
		d.stats.count(r)
		d.tell(r)
	}
	return r
}

// Stats are counters since the Detector was made. Statements and Findings are
// those of scopes that were finished.
type Stats struct {
	Scopes     uint64          // scopes in which a statement was seen
	Statements uint64          // statements in them
	Ignored    uint64          // of them under Ignore
	Dropped    uint64          // statements that a scope had no room for
	Findings   map[Kind]uint64 // by kind
}

type stats struct {
	scopes, statements, ignored, dropped atomic.Uint64
	findings                             [len(kinds)]atomic.Uint64
}

func (s *stats) count(r Report) {
	s.statements.Add(uint64(r.Statements))
	for i := range r.Ignored {
		s.ignored.Add(uint64(r.Ignored[i].Statements))
	}
	for i := range r.Findings {
		for k, kind := range kinds {
			if r.Findings[i].Kind == kind {
				s.findings[k].Add(1)
			}
		}
	}
}

// Stats returns the counters.
func (d *Detector) Stats() Stats {
	st := Stats{
		Scopes: d.stats.scopes.Load(), Statements: d.stats.statements.Load(),
		Ignored: d.stats.ignored.Load(), Dropped: d.stats.dropped.Load(),
		Findings: make(map[Kind]uint64, len(kinds)),
	}
	for i, kind := range kinds {
		st.Findings[kind] = d.stats.findings[i].Load()
	}
	return st
}

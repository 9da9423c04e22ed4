package nplusone

import (
	"fmt"
	"slices"
	"time"

	"github.com/gorminfra/infra/internal/scope"
)

// Report is what one scope's statements look like together.
type Report struct {
	// Route is the scope's name.
	Route string `json:"route"`
	// Statements that were sent or answered from a cache; of them Cached from
	// memory, Failed with an error, Dropped for want of room.
	Statements int `json:"statements"`
	Cached     int `json:"cached"`
	Failed     int `json:"failed"`
	Dropped    int `json:"dropped"`
	// Time is the sum of the own times of those not Cached.
	Time time.Duration `json:"time_ns"`
	// Ignored are the statements under Ignore, by reason.
	Ignored []Ignored `json:"ignored,omitempty"`
	// CallSites: statements were told apart by their place in the code, too.
	CallSites bool `json:"call_sites"`
	// Findings, the most expensive first.
	Findings []Finding `json:"findings"`

	queries []query
}

// Ignored counts statements under one reason.
type Ignored struct {
	Reason     string `json:"reason"`
	Statements int    `json:"statements"`
}

// Finding is a loop.
type Finding struct {
	Route string `json:"route"`
	Kind  Kind   `json:"kind"`
	// Statement is the SQL without its values; Fingerprint its hash.
	Statement   string `json:"statement"`
	Fingerprint string `json:"fingerprint"`
	Table       string `json:"table,omitempty"`
	// Count of the statements, and of the different parameters among them.
	Count    int `json:"count"`
	Distinct int `json:"distinct"`
	// Time is the sum of the statements' own times, Share its part of the
	// scope's, 0 to 1. Saved estimates what one statement instead of Count
	// would save: all but the mean time of one.
	Time  time.Duration `json:"time_ns"`
	Share float64       `json:"share"`
	Saved time.Duration `json:"saved_ns"`
	// Fixes, the likeliest first; never empty.
	Fixes []Fix `json:"fixes"`
	// Query is the line that runs the statement, Loop the one that loops, as
	// far as the stack tells. Callers are the lines that led to Query,
	// innermost first. All are empty without call sites.
	Query   *Place  `json:"query,omitempty"`
	Loop    *Place  `json:"loop,omitempty"`
	Callers []Place `json:"callers,omitempty"`
	// Samples are the parameters of up to three of the statements, kept in
	// development only.
	Samples []string `json:"samples,omitempty"`
}

// query is a group of statements as the test helpers count it.
type query struct {
	key   uint64
	shape string
	at    *site
	count int
}

func emptyReport(s *scope.Scope) Report {
	if s == nil {
		return Report{}
	}
	return Report{Route: s.Name(), Findings: []Finding{}}
}

// report makes the report. Names and symbols are resolved outside the lock.
func (t *tracker) report(threshold int) Report {
	t.mu.Lock()
	groups := slices.Clone(t.groups)
	r := Report{
		Route: t.scope.Name(), Statements: t.statements, Cached: t.cached, Failed: t.failed, Dropped: t.dropped,
		Time: t.time, Ignored: slices.Clone(t.ignored), CallSites: t.detail || t.detector.cfg.Development,
		Findings: []Finding{},
	}
	t.mu.Unlock()

	f := fixer{groups: groups, catalog: &t.detector.catalog, threshold: threshold}
	for i := range groups {
		g := &groups[i]
		r.queries = append(r.queries, query{g.key, g.text.Shape, g.site, int(g.all)})
		if kind := g.kind(threshold); kind != "" {
			r.Findings = append(r.Findings, f.finding(g, kind, &r))
		}
	}
	r.sort()
	return r
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return int(b.Time - a.Time) })
}

func (f *fixer) finding(g *group, kind Kind, r *Report) Finding {
	fixes, parent := f.fixes(g, kind)
	n := Finding{
		Route: r.Route, Kind: kind, Statement: g.text.Shape, Fingerprint: fmt.Sprintf("%016x", g.text.Fingerprint),
		Count: int(g.count), Distinct: int(g.distinct), Time: g.total, Saved: g.total - g.total/time.Duration(g.count),
		Fixes: fixes, Callers: g.site.places(),
	}
	if r.Time > 0 {
		n.Share = float64(g.total) / float64(r.Time)
	}
	switch {
	case len(g.text.Writes) > 0:
		n.Table = g.text.Writes[0].String()
	case len(g.text.Reads) > 0:
		n.Table = g.text.Reads[0].String()
	}
	if len(n.Callers) > 0 {
		n.Query = &n.Callers[0]
		var loaded []Place
		if parent != nil {
			loaded = parent.site.places()
		}
		n.Loop = loopLine(n.Callers, loaded)
	}
	for _, s := range g.samples {
		n.Samples = append(n.Samples, s.String())
	}
	return n
}

// add joins the report of another *gorm.DB in the same scope.
func (r *Report) add(o Report) {
	r.Statements += o.Statements
	r.Cached += o.Cached
	r.Failed += o.Failed
	r.Dropped += o.Dropped
	whole := r.Time + o.Time
	for _, part := range []struct {
		findings []Finding
		of       time.Duration
	}{{r.Findings, r.Time}, {o.Findings, o.Time}} {
		for i := range part.findings {
			if whole > 0 {
				part.findings[i].Share *= float64(part.of) / float64(whole)
			}
		}
	}
	r.Time = whole
	r.Ignored = append(r.Ignored, o.Ignored...)
	r.CallSites = r.CallSites || o.CallSites
	r.Findings = append(r.Findings, o.Findings...)
	r.queries = append(r.queries, o.queries...)
	r.sort()
}

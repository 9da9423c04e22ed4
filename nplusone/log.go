package nplusone

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// tell makes the findings of a finished scope known. It holds no lock while the
// user's code runs, and calls OnFinding last, which may panic.
func (d *Detector) tell(r Report) {
	if len(r.Findings) == 0 {
		return
	}
	if d.cfg.Output != nil {
		d.output.Lock()
		_, _ = r.WriteTo(d.cfg.Output) // a report that cannot be written is lost
		d.output.Unlock()
	} else {
		now := time.Now()
		for i := range r.Findings {
			if d.notes.due(&r.Findings[i], now, d.cfg.LogEvery) {
				f := &r.Findings[i]
				attrs := append([]slog.Attr{slog.String("db", d.cfg.Name)}, f.attrs()...)
				d.cfg.Logger.LogAttrs(context.Background(), slog.LevelWarn, "nplusone: "+f.sentence(), attrs...)
			}
		}
	}
	if d.cfg.OnFinding != nil {
		for i := range r.Findings {
			d.cfg.OnFinding(r.Findings[i])
		}
	}
}

// sentence is the finding and its likeliest fix for whoever reads the log.
func (f *Finding) sentence() string {
	what := fmt.Sprintf("%d queries in a loop", f.Count)
	switch f.Kind {
	case DuplicateQuery:
		what = fmt.Sprintf("the same query %d times", f.Count)
	case BatchThis:
		what = fmt.Sprintf("%d statements, one row at a time", f.Count)
	}
	if len(f.Fixes) == 0 {
		return what
	}
	fix := f.Fixes[0]
	switch {
	case fix.Code == "":
		return what + ": " + fix.Note
	case fix.Relation != "": // "on the query that loads ..."
		return what + ": " + fix.Code + " " + fix.Note
	}
	return what + ": " + fix.Code + ", " + fix.Note
}

// LogValue implements slog.LogValuer.
func (f Finding) LogValue() slog.Value { return slog.GroupValue(f.attrs()...) }

func (f *Finding) attrs() []slog.Attr {
	attrs := []slog.Attr{
		slog.String("route", f.Route), slog.String("kind", string(f.Kind)), slog.Int("count", f.Count), slog.Int("distinct", f.Distinct),
		slog.Duration("time", f.Time), slog.Float64("share", f.Share), slog.String("statement", f.Statement), slog.String("fingerprint", f.Fingerprint),
	}
	if len(f.Fixes) > 0 {
		fix := f.Fixes[0]
		attrs = append(attrs, slog.String("fix", fix.Code), slog.String("note", fix.Note), slog.String("confidence", string(fix.Confidence)))
		if fix.Parent != nil {
			attrs = append(attrs, slog.String("loaded", fix.Parent.String()))
		}
	}
	if f.Loop != nil {
		attrs = append(attrs, slog.String("loop", f.Loop.String()), slog.String("query", f.Query.String()))
	}
	if len(f.Samples) > 0 {
		attrs = append(attrs, slog.Any("samples", f.Samples))
	}
	return attrs
}

// maxLogged bounds the findings whose last log entry is remembered.
const maxLogged = 1 << 10

type loggedKey struct {
	route, fingerprint string
	kind               Kind
	query              Place
}

// logged keeps one finding from filling the log.
type logged struct {
	mu   sync.Mutex // guards last
	last *simplelru.LRU[loggedKey, time.Time]
}

// due reports whether f is to be logged now, and notes it.
func (l *logged) due(f *Finding, now time.Time, every time.Duration) bool {
	if every < 0 {
		return true
	}
	key := loggedKey{route: f.Route, fingerprint: f.Fingerprint, kind: f.Kind}
	if f.Query != nil {
		key.query = *f.Query
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last, _ = simplelru.NewLRU[loggedKey, time.Time](maxLogged, nil) // fails on a size below one only
	}
	if at, ok := l.last.Get(key); ok && now.Sub(at) < every {
		return false
	}
	l.last.Add(key, now)
	return true
}

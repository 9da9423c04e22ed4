package cachehook

import (
	"sync"
	"time"
)

// recent remembers the tags that were bumped, or told of, lately. A server that
// others have left after a failover may still have taken them, and one that is found
// instead may have lost them: they are bumped again there.
type recent struct {
	mu    sync.Mutex // guards the rest
	at    map[string]time.Time
	folds map[string]bool // tables whose rows are remembered as the whole
	full  time.Time       // when a tag last found no room
}

const (
	// rememberFor is longer than Sentinel or a Cluster leaves clients with a
	// master that has been replaced.
	rememberFor = time.Minute
	maxRecent   = 4096
)

func (r *recent) note(now time.Time, tags ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.at)+len(tags) > maxRecent {
		r.forgetLocked(now)
	}
	for _, tag := range tags {
		if table := tableOf(tag); r.folds[table] && isRow(tag) {
			r.noteLocked(now, table)
			tag = wholeTag(table)
		}
		r.noteLocked(now, tag)
	}
}

func (r *recent) noteLocked(now time.Time, tag string) {
	if _, there := r.at[tag]; !there && len(r.at) >= maxRecent {
		r.full = now
		return
	}
	if r.at == nil {
		r.at = make(map[string]time.Time)
	}
	r.at[tag] = now
}

// forgetLocked makes room: what is old goes, and if that is little rows are
// remembered as their tables.
func (r *recent) forgetLocked(now time.Time) {
	for tag, at := range r.at {
		if now.Sub(at) > rememberFor {
			delete(r.at, tag)
		}
	}
	r.folds = nil
	if len(r.at) <= maxRecent/2 {
		return
	}
	r.folds = make(map[string]bool)
	for tag, at := range r.at {
		if !isRow(tag) {
			continue
		}
		delete(r.at, tag)
		table := tableOf(tag)
		r.folds[table] = true
		for _, t := range []string{table, wholeTag(table)} {
			if at.After(r.at[t]) {
				r.at[t] = at
			}
		}
	}
}

// tags returns what was noted since; known is false when there was too much of it to
// remember, or it is too long ago.
func (r *recent) tags(now, since time.Time) (tags []string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.full.IsZero() && !r.full.Before(since) || now.Sub(since) > rememberFor {
		return nil, false
	}
	for tag, at := range r.at {
		if !at.Before(since) {
			tags = append(tags, tag)
		}
	}
	return tags, true
}

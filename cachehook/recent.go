package cachehook

import (
	"sync"
	"time"
)

// recent remembers the tags that this process has bumped lately. A server that
// others have left after a failover may still have taken them: they are bumped
// again on the server that is found instead.
type recent struct {
	mu   sync.Mutex // guards the rest
	at   map[string]time.Time
	full time.Time // when a tag last found no room
}

const (
	// rememberFor is longer than Sentinel or a Cluster leaves clients with a
	// master that has been replaced.
	rememberFor = time.Minute
	maxRecent   = 4096
)

func (r *recent) note(tags []string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.at)+len(tags) > maxRecent {
		r.forgetLocked(now)
	}
	for _, tag := range tags {
		if _, there := r.at[tag]; !there && len(r.at) >= maxRecent {
			r.full = now
			return
		}
		if r.at == nil {
			r.at = make(map[string]time.Time)
		}
		r.at[tag] = now
	}
}

func (r *recent) forgetLocked(now time.Time) {
	for tag, at := range r.at {
		if now.Sub(at) > rememberFor {
			delete(r.at, tag)
		}
	}
}

// tags returns what was bumped lately; known is false when there were too many
// to remember.
func (r *recent) tags(now time.Time) (tags []string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.full.IsZero() && now.Sub(r.full) <= rememberFor {
		return nil, false
	}
	r.forgetLocked(now)
	for tag := range r.at {
		tags = append(tags, tag)
	}
	return tags, true
}

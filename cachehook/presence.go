package cachehook

import (
	"context"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// Presence is what of a result is kept at a moment.
type Presence struct {
	// Reason says why neither level would be asked or served just now: roster,
	// writer, redis, or size for a result that was too large a moment ago.
	Reason Reason `json:"reason,omitempty"`
	Memory Held   `json:"memory"`
	Redis  Held   `json:"redis"`
}

// Held is what one level holds.
type Held struct {
	// Valid: it would be served. Otherwise Lacks says what is lacking: cold,
	// expired, invalidated or corrupt, as the metric of misses does; "" where the
	// level was not looked at, or there is none.
	Valid bool   `json:"valid"`
	Lacks string `json:"lacks,omitempty"`
	// Age is how old it is. What memory has from Redis counts from when it came
	// from there. In Redis only the end is known: then Age is the most that it can
	// be, too much by what jitter has taken off.
	Age time.Duration `json:"age_ns,omitempty"`
	// Left is the time until its TTL ends; negative: it has ended, and it is served
	// while it is read anew.
	Left time.Duration `json:"left_ns,omitempty"`
	// Bytes is what it takes, estimated.
	Bytes int `json:"bytes,omitempty"`
}

// peek is find for one who only wants to know: it leaves everything in its place.
func (c *Cache) peek(ctx context.Context, q *query) *Presence {
	p := &Presence{}
	now := c.now()
	if c.roster != nil && !c.roster.admits(q.cells, now) {
		p.Reason = Reason(reasonNames[c.unadmitted()])
		return p
	}
	why := missCold
	e := c.memory.peek(q.key)
	if e != nil && now >= e.expires+int64(q.stale) {
		e, why = nil, missExpired
	}
	valid := e != nil && c.trusts(q) && e.current(c.mirror)
	var inTheWay Reason
	if !valid && writing(q.cells) {
		inTheWay = ReasonWriter
	}
	if c.store != nil && inTheWay == "" {
		a, err := c.store.lookup(context.WithoutCancel(ctx), q.tags, l2Name(q.key))
		switch {
		case err != nil || c.doubtful():
			inTheWay = ReasonRedis
		case a.marked:
			inTheWay = ReasonWriter
		default:
			valid = valid || e != nil && q.fits(e.dependsOn()) && e.carries(a.stamps)
			p.Redis = c.heldInRedis(q, a, now)
		}
	}
	if inTheWay != "" && !valid {
		p.Reason = inTheWay
		return p
	}
	if p.Memory = c.held(q, e, valid, why, now); !valid {
		return p
	}
	if _, not := e.value.(unstorable); not {
		p.Reason, p.Memory = ReasonSize, Held{Lacks: missNames[missCold]}
	}
	return p
}

// heldInRedis describes what Redis has answered.
func (c *Cache) heldInRedis(q *query, a answer, asked int64) Held {
	e, lacks := c.fromPayload(q, a, a.stamps, asked, missCold)
	if e == nil {
		return Held{Lacks: missNames[lacks]}
	}
	rows, known := rowsIn(e.value)
	_, longest := c.longest(q, known && rows == 0)
	left := a.ttl - q.stale
	return Held{Valid: true, Age: max(longest-left, 0), Left: left, Bytes: len(a.data)}
}

// held describes an entry of memory.
func (c *Cache) held(q *query, e *entry, valid bool, why missReason, now int64) Held {
	switch {
	case e == nil:
		return Held{Lacks: missNames[why]}
	case !valid:
		return Held{Lacks: missNames[missInvalidated]}
	}
	return Held{Valid: true, Age: hook.Now().Sub(e.shownAt()), Left: time.Duration(e.expires - now), Bytes: int(cost(len(q.key), e))}
}

// peek is get for one who does not use the entry: it stays as long unused as it was.
func (m *memory) peek(key []byte) *entry {
	sh := &m.shards[m.index(key)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.items[lent(key)]
}

package cachehook

import (
	"bytes"
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// query is one look-up: what it depends on, and under which key.
type query struct {
	key   []byte
	cells []*cell
	tags  []string // of the cells
	terms
	kind  byte // of payload
	mixed bool // a snapshot does not do: the rows are asked for

	tally *tally

	// after is when the caller's work last learned what a database holds. What
	// memory is trusted for must have been heard of since; 0: it need not.
	after int64

	now      int64  // when it began, on the cache's clock; 0: now
	sessions uint32 // Cache.sessions when the query began; of rows

	// Of rows: what cells and tags are made of by expand. They begin with the plan's.
	plan     *plan
	own      []string // the caller's tags
	args     []any
	expanded bool
	// rows is how many rows are asked for by primary key, 0 if not so. When all are
	// found the last cell, the table's own, does not count: none can be added.
	rows   int
	pruned bool // it has been left out
}

// depends returns how many of the query's cells a value depends on; ok is false
// when it would depend on one that has been left out.
func (q *query) depends(value any) (n int, ok bool) {
	rows, known := rowsIn(value)
	all := known && rows >= q.rows
	switch {
	case q.rows == 0:
		return len(q.cells), true
	case q.pruned:
		return len(q.cells), all
	case all:
		return len(q.cells) - 1, true
	}
	return len(q.cells), true
}

// rowsIn returns how many rows a value has, if it is a result.
func rowsIn(value any) (n int, known bool) {
	switch v := value.(type) {
	case *rowset:
		return int(v.rows), true
	case *snapshot:
		return int(v.rows), true
	}
	return 0, false
}

// fits reports whether an entry that depends on n cells may be one of the query.
func (q *query) fits(n int) bool {
	return n == len(q.cells) || q.rows > 0 && !q.pruned && n == len(q.cells)-1
}

// level says where an entry was found.
type level uint8

const (
	nowhere level = iota
	inMemory
	inRedis
)

// standing is what a look-up found.
type standing struct {
	entry  *entry // fit to be served, or nil
	level  level
	now    int64         // when its times were looked at
	waited time.Duration // for Redis

	// Without an entry: stamps to read the database under, or nil when it must
	// be read without filling anything, and then perhaps on the primary.
	stamps  []stamp
	why     missReason
	asked   bool // L2 has not got it either
	primary bool
}

// find looks the query up. While a writer is between its mark and its stamp, and
// while Redis cannot be asked, nothing is served and nothing may be filled.
func (c *Cache) find(ctx context.Context, q *query) standing {
	now, why := q.now, missCold
	if now == 0 {
		now = c.now()
	}
	if c.roster != nil && !c.roster.admits(q.cells, now) {
		if !c.enroll(ctx, q.cells) {
			return standing{}
		}
		now = c.now()
	}
	e := c.memory.get(q.key)
	if e != nil && now >= e.expires+int64(q.stale) {
		c.memory.remove(q.key, e)
		e, why = nil, missExpired
	}
	trusted := c.trusts(q)
	if trusted && e != nil && e.current(c.mirror) {
		return standing{entry: e, level: inMemory, now: now}
	}
	if e != nil && !trusted {
		q.adopt(e)
	}
	c.expand(q)
	if writing(q.cells) {
		return standing{primary: true}
	}
	if trusted {
		if stamps, known := c.present(q.cells); known {
			if e != nil {
				why = missInvalidated
			}
			return standing{stamps: stamps, why: why}
		}
	}
	if c.store == nil { // a tag was evicted at this moment
		return standing{}
	}
	own := *q
	own.args = nil
	own.key = bytes.Clone(q.key) // its buffer may be gone when the question is asked
	name := string(q.key)
	if q.kind == kindBlob { // the key of a value by hand may not hold its tags
		name += strings.Join(q.tags, tagSeparator)
	}
	if q.pruned {
		name += rowMark // it asks for fewer stamps
	}
	began := time.Now()
	s, ok := c.batches.ask(ctx, name, func() standing { return c.ask(ctx, &own, e, why) })
	if !ok {
		s = standing{}
	}
	s.waited, s.now = time.Since(began), now
	return s
}

// trusts reports whether what the mirror knows counts for the query.
func (c *Cache) trusts(q *query) bool {
	return c.trusted() && (q.after == 0 || c.channel.proof.Load() > q.after)
}

// writing reports whether an own write of one of the tags is under way.
func writing(cells []*cell) bool {
	for _, cell := range cells {
		if cell.busy.Load() != 0 {
			return true
		}
	}
	return false
}

// present returns the stamps that the mirror knows.
func (c *Cache) present(cells []*cell) (stamps []stamp, known bool) {
	stamps = make([]stamp, len(cells))
	for i, cell := range cells {
		if stamps[i], known = c.mirror.present(cell); !known {
			return nil, false
		}
	}
	return stamps, true
}

// ask looks the query up in Redis, one round trip: the stamps, and the entry
// unless memory holds one that they may confirm. Where a lease runs, a tag that is
// not known has most likely been written, and the entry with it.
func (c *Cache) ask(ctx context.Context, q *query, e *entry, why missReason) standing {
	questions := make([]question, len(q.cells))
	for i, cell := range q.cells {
		questions[i] = c.mirror.ask(cell)
	}
	name := ""
	if e == nil || c.channel != nil && c.channel.healthy() {
		name = l2Name(q.key)
	}
	asked := c.now()
	// Not ctx: others may wait for the answer, and the budget bounds it.
	a, err := c.store.lookup(context.WithoutCancel(ctx), q.tags, name)
	if err != nil || c.doubtful() {
		c.counts.bypass(reasonRedis)
		return standing{}
	}
	if a.marked {
		// The mark's message may still be on its way, and the next reader shall
		// not be served what is older than this one is going to be shown.
		for _, i := range a.marks {
			c.mirror.forgetWith(q.cells[i])
		}
		return standing{primary: true}
	}
	c.mirror.learnAll(q.cells, questions, a.stamps)
	if e != nil && q.fits(e.dependsOn()) && e.carries(a.stamps) {
		return standing{entry: e, level: inMemory}
	}
	if e != nil {
		why = missInvalidated
	}
	if e, why = c.fromPayload(q, a, a.stamps, asked, why); e != nil {
		c.memory.put(q.key, e)
		return standing{entry: e, level: inRedis}
	}
	return standing{stamps: a.stamps, why: why, asked: name != ""}
}

// fromPayload makes an entry of what L2 holds, or returns nil if it is not what
// the query needs under these stamps. asked is the time before Redis was asked: what
// it says of the time left counts from then at the earliest.
func (c *Cache) fromPayload(q *query, a answer, stamps []stamp, asked int64, why missReason) (*entry, missReason) {
	if a.data == nil {
		return nil, why
	}
	p, err := decode(a.data)
	if err == nil && q.rows > 0 && !q.fits(len(p.tags)) {
		return nil, missInvalidated // of another number of cells: what was found before is not, or the reverse
	}
	if err == nil && (p.kind != q.kind || !q.fits(len(p.tags)) || !slices.Equal(p.tags, q.tags[:len(p.tags)])) {
		err = errCorruptMismatch
	}
	if err != nil {
		c.counts.unreadable(err)
		return nil, missCorrupt
	}
	if stamps = stamps[:len(p.stamps)]; !slices.Equal(p.stamps, stamps) {
		return nil, missInvalidated
	}
	var value any = p.blob
	size := len(p.blob)
	if p.kind == kindRows {
		value, size = p.rows, p.rows.bytes()
		p.rows.mixed = q.mixed
	}
	l1, _ := c.lives(q, value)
	e := c.memory.newEntry(value, size, q.cells[:len(stamps)], stamps, asked+int64(min(a.ttl-q.stale, l1)))
	e.cost = p.cost
	return e, why
}

// jitter is the share of its time by which an entry's life is shortened at most, so
// that entries that were filled together do not end together.
const jitter = 0.1

// lives returns for how long a value of the query stays in each level, without
// the time that it may be served beyond. Jitter only shortens.
func (c *Cache) lives(q *query, value any) (l1, l2 time.Duration) {
	rows, known := rowsIn(value)
	l1, l2 = c.longest(q, known && rows == 0)
	if l1 < 0 {
		return l1, l2
	}
	keep := 1 - jitter*rand.Float64()
	return time.Duration(float64(l1) * keep), time.Duration(float64(l2) * keep)
}

// longest is lives without jitter. Negative: it is not kept.
func (c *Cache) longest(q *query, notFound bool) (l1, l2 time.Duration) {
	l1, l2 = c.cfg.L1.TTL, c.cfg.L2.TTL
	if q.ttl > 0 {
		ttl := min(q.ttl, maxTTL)
		l1, l2 = ttl, ttl
	}
	if notFound {
		most := cmp.Or(q.notFound, c.cfg.NotFoundTTL)
		if most < 0 {
			return most, most
		}
		l1, l2 = min(l1, most), min(l2, most)
	}
	return l1, l2
}

// fill puts a value that was read under these stamps into memory, and returns
// what is left to do for L2. began is the time before the database was asked.
func (c *Cache) fill(q *query, stamps []stamp, value any, size int, began int64, p *payload) (*entry, func()) {
	l1, l2 := c.lives(q, value)
	n, sound := q.depends(value)
	stamps = stamps[:n]
	e := c.memory.newEntry(value, size, q.cells[:n], stamps, began+int64(l1))
	e.cost = costOf(c.now() - began)
	if l1 < 0 || !sound {
		q.tally.refused[fillNotFound].Add(1)
		return e, nil
	}
	if q.kind == kindRows && q.sessions != c.sessions.Load() {
		q.tally.refused[fillSession].Add(1)
		return e, nil // perhaps read on a connection whose session was changed
	}
	if size > c.cfg.MaxResult { // of a value by hand
		q.tally.refused[fillSize].Add(1)
		return e, nil
	}
	if e.overtaken(c.mirror) {
		q.tally.refused[fillOvertaken].Add(1)
	} else {
		c.memory.put(q.key, e)
		q.tally.fills.Add(1)
	}
	if c.store == nil {
		c.sayAlone()
	}
	if c.store == nil || p == nil {
		return e, nil
	}
	name := l2Name(q.key)
	return e, func() {
		p.tags, p.stamps, p.cost = q.tags[:n], stamps, e.cost
		data, ok := p.encode(c.cfg.L2.CompressAbove)
		// Redis counts from when it takes the command.
		left := l2 + q.stale - time.Duration(c.now()-began) - min(c.cfg.Timeout, l2/20)
		switch {
		case !ok:
			q.tally.refused[fillType].Add(1)
		case left < time.Millisecond:
		case c.store.put(context.Background(), name, data, left) != nil:
			q.tally.refused[fillRedis].Add(1)
		}
	}
}

// again looks once more where a flight that has just landed would have put it,
// and tells how long it waited for Redis. Where there is nothing why is made what
// the query lacks.
func (c *Cache) again(q *query, stamps []stamp, asked bool, why *missReason) (*entry, level, time.Duration) {
	if e := c.memory.get(q.key); e != nil && c.now() < e.expires+int64(q.stale) && q.fits(e.dependsOn()) && e.carries(stamps) {
		if _, typed := e.value.(*snapshot); !typed || !q.mixed {
			return e, inMemory, 0
		}
	}
	if c.store == nil || asked {
		return nil, nowhere, 0
	}
	began, sent := time.Now(), c.now()
	a, err := c.store.fetch(context.Background(), l2Name(q.key))
	waited := time.Since(began)
	if err != nil || c.doubtful() {
		return nil, nowhere, waited
	}
	e, lacks := c.fromPayload(q, a, stamps, sent, *why)
	*why = lacks
	if e == nil {
		return nil, nowhere, waited
	}
	c.memory.put(q.key, e)
	return e, inRedis, waited
}

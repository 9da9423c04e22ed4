package cachehook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"reflect"
	"time"
	"unsafe"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// unstorable is the value of an entry which says that the result cannot be
// stored: who finds it need not try again.
type unstorable struct{}

const unstorableFor = 10 * time.Second

// queryKey writes the key of a statement to b. It reports false when an argument
// cannot be told from its look.
func queryKey(b []byte, p *plan, r *hook.Record, who tenant, t terms, own []string) ([]byte, bool) {
	b = who.append(append(b, p.leadFor(destination(r), t)...))
	b = binary.AppendUvarint(b, uint64(len(own)))
	for _, tag := range own {
		b = appendString(b, tag)
	}
	return appendArgs(b, r.Args)
}

// asking is how a statement is asked: for what destination, and on which terms.
type asking struct {
	dest  reflect.Type // nil: rows
	terms terms
	lead  []byte // of its keys
}

// leadFor returns what the keys of the plan's statement begin with, as long as a
// plan's own lead: each entry in memory holds its key.
func (p *plan) leadFor(dest reflect.Type, t terms) []byte {
	if a := p.asked.Load(); a != nil && a.dest == dest && a.terms == t {
		return a.lead
	}
	b := appendString(append(make([]byte, 0, 128), p.lead...), nameOfType(dest))
	b = binary.AppendVarint(b, int64(t.ttl))
	b = binary.AppendVarint(b, int64(t.notFound))
	b = binary.AppendVarint(b, int64(t.stale))
	sum := sha256.Sum256(b)
	a := &asking{dest, t, append([]byte{'q'}, sum[:]...)}
	p.asked.Store(a)
	return a.lead
}

// destination is the type that is asked for, nil for rows.
func destination(r *hook.Record) reflect.Type {
	if r.Chain == hook.Query && r.DB.Statement.Dest != nil {
		return reflect.TypeOf(r.DB.Statement.Dest)
	}
	return nil
}

func nameOfType(dest reflect.Type) string {
	if dest == nil {
		return "rows"
	}
	return dest.String()
}

// decide settles what can be told of a statement before anything is looked up: by
// which terms and tags, and under which key, which it writes to buf. It reports false,
// and why, when the cache cannot be used for it; then q has what is known so far.
func (c *Cache) decide(ctx context.Context, r *hook.Record, q *query, buf []byte) (why reason, ok bool) {
	o, _ := optionOf(r.DB.Statement)
	q.kind, q.args = kindRows, r.Args
	q.terms, _ = c.ruleOf(r.Text)
	q.overrule(o)
	for _, tag := range o.tags {
		if checkTag(tag) != nil {
			return reasonTag, false
		}
	}
	q.sessions = c.sessions.Load()
	q.now = c.now()
	cat := c.catalog.fresh(q.now)
	if cat == nil {
		cat = c.catalogFor(ctx, r)
		q.now = c.now()
	}
	if cat == nil {
		return reasonCatalog, false
	}
	p := c.plan(r.SQL, r.Text, cat)
	own, known := c.ownTags(o.tags, cat)
	q.plan, q.cells, q.tags, q.tally, q.own = p, p.cells, p.tags, p.tally, own
	if p.why != "" || !known {
		return reasonTable, false
	}
	who, ok := p.of(c.tenantOf(ctx))
	if !ok {
		return reasonTenant, false
	}
	if q.key, ok = queryKey(buf, p, r, who, q.terms, own); !ok {
		return reasonArgument, false
	}
	q.after = c.contactOf(r)
	return 0, true
}

// serve answers a statement from the cache or lets it through.
func (c *Cache) serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	buf := keyBuffers.Get().(*[]byte)
	defer func() { keyBuffers.Put(buf) }()
	var q query
	why, ok := c.decide(ctx, r, &q, (*buf)[:0])
	if q.key != nil {
		*buf = q.key
	}
	if !ok {
		return c.through(ctx, r, why)
	}
	s := c.find(ctx, &q)
	r.Waited += s.waited
	switch {
	case s.entry != nil:
		if c.due(&q, s.entry, s.now) {
			c.refresh(ctx, r, &q, s.entry)
		}
		return c.hit(ctx, r, &q, s.entry, s.level)
	case s.stamps == nil:
		r.Lookup = hook.Bypass
		if s.primary {
			c.counts.bypass(reasonWriter)
			r.NeedPrimary = true
		}
		return r.Next(ctx)
	}
	began := c.now()
	why, ok = c.keeps(ctx, q.plan.catalog, s.stamps)
	r.Waited += time.Duration(c.now() - began)
	if !ok {
		return c.through(ctx, r, why)
	}
	return c.fly(ctx, r, &miss{query: q}, s) // on the heap, which a hit has no need of
}

// contactOf is when the work that r belongs to last learned what a database holds,
// on the cache's clock; 0 if that is older than any trust in memory.
func (c *Cache) contactOf(r *hook.Record) int64 {
	if c.channel == nil {
		return 0
	}
	ago, ok := hook.SinceContact(r.Scope)
	if !ok || ago >= c.cfg.Lease {
		return 0
	}
	return max(c.now()-int64(ago), 1)
}

func (c *Cache) through(ctx context.Context, r *hook.Record, why reason) (*sql.Rows, error) {
	c.counts.bypass(why)
	r.Lookup = hook.Bypass
	return r.Next(ctx)
}

// catalogFor returns the catalogue, or nil. Reading it is waited for on the
// statement's time.
func (c *Cache) catalogFor(ctx context.Context, r *hook.Record) *catalog {
	if cat := c.catalog.get(ctx, false); cat != nil {
		return cat
	}
	began := time.Now()
	defer func() { r.Waited += time.Since(began) }()
	return c.catalog.get(ctx, true)
}

// hit serves an entry that carries stamps.
func (c *Cache) hit(ctx context.Context, r *hook.Record, q *query, e *entry, at level) (*sql.Rows, error) {
	var set *rowset
	switch v := e.value.(type) {
	case *snapshot:
		if !r.CanFill() || !v.fits(r.DB.Statement) {
			return c.misfit(ctx, r, q, e)
		}
	case *rowset:
		set = v
	default:
		return c.through(ctx, r, reasonSize)
	}
	r.Lookup, r.Shown = hook.Hit, e.shownAt()
	if q.stale > 0 && c.now() >= e.expires {
		q.tally.stale.Add(1)
	}
	switch at {
	case inMemory:
		r.Outcome = hook.L1
	case inRedis:
		r.Outcome = hook.L2
	}
	q.tally.hit(at)
	if set == nil {
		return c.show(ctx, r, e)
	}
	if !set.mixed && r.CanFill() {
		if c.memory.off() {
			if models, ok := readGift(r.DB.Statement, set); ok && ctx.Err() == nil {
				return nil, r.FillWith(models)
			}
		}
		if t := readSnapshot(r.DB.Statement, set); t != unfit {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			c.memory.replace(q.key, e, e.with(t, int(t.bytes)-set.bytes()))
			return nil, r.FillWith(t)
		}
		c.keepTyped(r, q.key, e, set)
	}
	return c.replay(ctx, set)
}

// show hands an entry's value over: models, which fit, or rows as they are.
func (c *Cache) show(ctx context.Context, r *hook.Record, e *entry) (*sql.Rows, error) {
	t, models := e.value.(*snapshot)
	if !models {
		return c.replay(ctx, e.value.(*rowset))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, r.FillWith(t)
}

// misfit reads the rows of an entry of which only a snapshot is left, for a
// statement that has another kind of destination under the same key. From then
// on the rows are kept in its place.
func (c *Cache) misfit(ctx context.Context, r *hook.Record, q *query, e *entry) (*sql.Rows, error) {
	if q.mixed {
		c.missed(r, q, missForm)
		return r.Next(ctx)
	}
	own := &miss{query: *q}
	own.mixed = true
	own.adopt(e)
	return c.fly(ctx, r, own, standing{stamps: e.stamps(), why: missForm})
}

// keepTyped lets GORM scan the entry's rows once more, and keeps what it makes
// of them in the place of the rows.
func (c *Cache) keepTyped(r *hook.Record, key []byte, e *entry, set *rowset) {
	key = bytes.Clone(key) // its buffer is another's by then
	r.OnScan(func(stmt *gorm.Statement) {
		if t := takeSnapshot(stmt, set); t != unfit {
			c.memory.replace(key, e, e.with(t, int(t.bytes)-set.bytes()))
			return
		}
		rows := *set
		rows.mixed = true // it need not be tried again
		c.memory.replace(key, e, e.with(&rows, 0))
	})
}

// replay makes rows of a result in memory. They do not watch ctx: there is
// nothing to wait for.
func (c *Cache) replay(ctx context.Context, set *rowset) (*sql.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rows := newReader(set)
	return c.hub.Load().Replay().Rows(context.Background(), &rows)
}

// miss is a query that is not answered, and the flight that it leads if nobody else
// leads one.
type miss struct {
	query
	own flight
}

// fly waits for the flight that reads the query's result, or leads it.
func (c *Cache) fly(ctx context.Context, r *hook.Record, m *miss, s standing) (*sql.Rows, error) {
	q := &m.query
	name := flightName(q.key, s.stamps)
	q.key = unsafe.Slice(unsafe.StringData(name), len(q.key)) // a flight outlives its buffer; nobody writes to it
	for {
		f, leads := c.flights.joinOr(name, &m.own)
		if leads {
			return c.lead(ctx, r, q, s, f, name)
		}
		began := time.Now()
		landedInTime := c.flights.wait(ctx, f, c.cfg.FlightTimeout)
		r.Waited += time.Since(began)
		how := alone
		switch {
		case landedInTime:
			how = f.verdict
		case ctx.Err() != nil:
			return nil, ctx.Err()
		default: // its leader's caller has more patience
			c.flights.forget(name, f)
		}
		switch how {
		case landed:
			if t, models := f.entry.value.(*snapshot); models && (!r.CanFill() || !t.fits(r.DB.Statement)) {
				return c.misfit(ctx, r, q, f.entry)
			}
			r.Outcome, r.Lookup, r.Shown = hook.Shared, hook.Hit, f.entry.shownAt()
			q.tally.shared.Add(1)
			return c.show(ctx, r, f.entry)
		case failed:
			r.Outcome, r.Lookup = hook.Shared, hook.Hit
			return nil, f.err
		case refused:
			continue
		}
		c.missed(r, q, s.why)
		return r.Next(ctx)
	}
}

// missed notes that the database has to answer.
func (c *Cache) missed(r *hook.Record, q *query, why missReason) {
	q.tally.misses[why].Add(1)
	r.Lookup = hook.Miss
}

func flightName(key []byte, stamps []stamp) string {
	b := append(make([]byte, 0, len(key)+len(stamps)*len(stamp{})), key...)
	for i := range stamps {
		b = append(b, stamps[i][:]...)
	}
	return lent(b) // nobody writes to it any more
}

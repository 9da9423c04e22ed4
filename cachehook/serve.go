package cachehook

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// unstorable is the value of an entry which says that the result cannot be
// stored: who finds it need not try again.
type unstorable struct{}

const unstorableFor = 10 * time.Second

// queryKey writes the key of a statement to b. It reports false when an argument
// cannot be told from its look.
func queryKey(b []byte, p *plan, r *hook.Record, ttl time.Duration, own []string) ([]byte, bool) {
	b = append(b, p.lead...)
	dest := "rows"
	if r.Chain == hook.Query && r.DB.Statement.Dest != nil {
		dest = reflect.TypeOf(r.DB.Statement.Dest).String()
	}
	b = appendString(b, dest)
	b = binary.AppendVarint(b, int64(ttl))
	b = binary.AppendUvarint(b, uint64(len(own)))
	for _, tag := range own {
		b = appendString(b, tag)
	}
	return appendArgs(b, r.Args)
}

// serve answers a statement from the cache or lets it through.
func (c *Cache) serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	o, _ := optionOf(r.DB.Statement)
	ttl, _ := c.byRule(r.Text)
	if o.ttl != nil {
		ttl = *o.ttl
	}
	for _, tag := range o.tags {
		if checkTag(tag) != nil {
			return c.through(ctx, r, reasonTag)
		}
	}
	cat := c.catalog.get(ctx, true)
	if cat == nil {
		return c.through(ctx, r, reasonCatalog)
	}
	p := c.plan(r.SQL, r.Text, cat)
	if p.why != "" {
		return c.through(ctx, r, reasonTable)
	}
	buf := keyBuffers.Get().(*[]byte)
	defer func() { keyBuffers.Put(buf) }()
	key, ok := queryKey((*buf)[:0], p, r, ttl, o.tags)
	*buf = key
	if !ok {
		return c.through(ctx, r, reasonArgument)
	}
	q := query{key: key, ttl: ttl, kind: kindRows}
	q.cells, q.tags = c.withTags(p, o.tags)

	s := c.find(ctx, &q)
	switch {
	case s.entry != nil:
		return c.hit(ctx, r, s.entry, s.level)
	case s.stamps == nil:
		if s.primary {
			c.counts.bypass(reasonWriter)
			r.NeedPrimary = true
		}
		return r.Next(ctx)
	case s.stamps[1] != cat.schema:
		// DDL of another instance that nobody told us of.
		c.catalog.present.CompareAndSwap(cat, nil)
		return c.through(ctx, r, reasonCatalog)
	}
	q.key = append([]byte(nil), key...) // a flight outlives the buffer
	return c.fly(ctx, r, &q, s)
}

func (c *Cache) through(ctx context.Context, r *hook.Record, why reason) (*sql.Rows, error) {
	c.counts.bypass(why)
	return r.Next(ctx)
}

// hit serves an entry.
func (c *Cache) hit(ctx context.Context, r *hook.Record, e *entry, at level) (*sql.Rows, error) {
	set, ok := e.value.(*rowset)
	if !ok {
		return c.through(ctx, r, reasonSize)
	}
	switch at {
	case inMemory:
		r.Outcome = hook.L1
		c.counts.l1.Add(1)
	case inRedis:
		r.Outcome = hook.L2
		c.counts.l2.Add(1)
	}
	return c.replay(ctx, set)
}

// replay makes rows of a result in memory. They do not watch ctx: there is
// nothing to wait for.
func (c *Cache) replay(ctx context.Context, set *rowset) (*sql.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.hub.Load().Replay().Rows(context.Background(), &reader{set: set})
}

// fly waits for the flight that reads the query's result, or leads it.
func (c *Cache) fly(ctx context.Context, r *hook.Record, q *query, s standing) (*sql.Rows, error) {
	name := flightName(q.key, s.stamps)
	for {
		f, leads := c.flights.join(name)
		if leads {
			return c.lead(ctx, r, q, s, f, name)
		}
		began := time.Now()
		select {
		case <-f.done:
			r.Waited += time.Since(began)
		case <-ctx.Done():
			r.Waited += time.Since(began)
			return nil, ctx.Err()
		}
		switch f.verdict {
		case landed:
			r.Outcome = hook.Shared
			c.counts.shared.Add(1)
			return c.replay(ctx, f.entry.value.(*rowset))
		case failed:
			r.Outcome = hook.Shared
			return nil, f.err
		case refused:
			continue
		}
		return r.Next(ctx)
	}
}

func flightName(key []byte, stamps []stamp) string {
	b := append(make([]byte, 0, len(key)+len(stamps)*len(stamp{})), key...)
	for i := range stamps {
		b = append(b, stamps[i][:]...)
	}
	return string(b)
}

// expedition is what a flight's leader and its work share.
type expedition struct {
	fork   *hook.Record
	ctx    context.Context
	cancel func()

	mu   sync.Mutex // guards the rest
	gone bool       // the leader's caller has left
	tail *remainder // a result too large to store, for the caller alone
}

// offer hands a live result to the caller, if it still waits.
func (x *expedition) offer(tail *remainder) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.gone {
		x.tail = tail
	}
	return !x.gone
}

// leave takes the live result, if there is one, and refuses a later one.
func (x *expedition) leave() *remainder {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = true
	return x.tail
}

// lead reads the database for everybody who waits for the flight. The work goes
// on when the caller leaves.
func (c *Cache) lead(ctx context.Context, r *hook.Record, q *query, s standing, f *flight, name string) (*sql.Rows, error) {
	x := &expedition{}
	var cancel context.CancelFunc
	x.ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
	timer := time.AfterFunc(c.cfg.FlightTimeout, cancel)
	closing := context.AfterFunc(c.life, cancel)
	x.cancel = func() { timer.Stop(); closing(); cancel() }
	x.fork = r.Fork(x.ctx)
	x.fork.Background, x.fork.Quiet = false, true

	c.flights.start(name, f, func() (landing, func()) { return c.work(x, q, s, timer, closing) })
	select {
	case <-f.done:
	case <-ctx.Done():
		if tail := x.leave(); tail != nil {
			_ = tail.Close()
		}
		return nil, ctx.Err()
	}
	switch {
	case f.verdict == landed && f.fromL2:
		return c.hit(ctx, r, f.entry, inRedis)
	case f.verdict == landed && x.fork.Node == nil:
		return c.hit(ctx, r, f.entry, inMemory)
	case f.panicked != nil:
		panic(f.panicked)
	}
	c.counts.misses.Add(1)
	r.Node, r.Reason, r.Retries, r.Outcome = x.fork.Node, x.fork.Reason, x.fork.Retries, x.fork.Outcome
	switch tail := x.leave(); {
	case tail != nil:
		return c.hub.Load().Replay().Rows(ctx, tail)
	case f.verdict == landed:
		return c.replay(ctx, f.entry.value.(*rowset))
	case f.err != nil:
		return nil, f.err
	}
	r.Outcome = hook.Database
	return r.Next(ctx)
}

// work is the flight itself.
func (c *Cache) work(x *expedition, q *query, s standing, timer *time.Timer, closing func() bool) (landing, func()) {
	done := false
	defer func() {
		if !done { // a panic, or Goexit
			x.fork.Finish(-1, errAborted)
		}
		x.mu.Lock()
		handed := x.tail != nil
		x.mu.Unlock()
		if !handed {
			x.cancel()
		}
	}()
	if e, at := c.again(q, s.stamps, s.asked); e != nil {
		done = true
		if _, ok := e.value.(*rowset); !ok {
			return landing{}, nil
		}
		return landing{verdict: landed, entry: e, fromL2: at == inRedis}, nil
	}
	lsn, known := c.floors.floor(q.cells, s.stamps)
	x.fork.NeedPrimary, x.fork.MinLSN = !known, lsn
	began := c.now()
	rows, err := x.fork.Next(x.ctx)
	if err != nil {
		done = true
		x.fork.Finish(-1, err)
		return x.failure(err), nil
	}
	set, err := record(rows, c.cfg.MaxResult)
	done = true
	switch {
	case errors.Is(err, errUnstorable):
		c.counts.bypass(reasonSize)
		c.memory.put(q.key, newEntry(unstorable{}, 0, q.cells, s.stamps, began+int64(unstorableFor)))
		timer.Stop() // the caller's own patience counts from now on
		closing()
		tail := newRemainder(set, rows, func(n int64, err error) {
			x.fork.Finish(n, err)
			x.cancel()
		})
		if !x.offer(tail) {
			_ = tail.Close()
		}
		return landing{}, nil
	case err != nil:
		x.fork.Finish(-1, err)
		return x.failure(err), nil
	}
	x.fork.Finish(int64(set.rows), nil)
	e, after := c.fill(q, s.stamps, set, set.bytes, began, &payload{kind: kindRows, rows: set})
	return landing{verdict: landed, entry: e}, after
}

var errAborted = errors.New("cachehook: the flight ended before its query did")

// failure says what an error means for those who wait.
func (x *expedition) failure(err error) landing {
	var answered interface{ SQLState() string }
	switch {
	case x.fork.Outcome == hook.Refused:
		return landing{verdict: refused, err: err}
	case x.ctx.Err() != nil: // the flight's time was up, or the cache is closing
		return landing{}
	case errors.As(err, &answered) && sameForAll(answered.SQLState()):
		return landing{verdict: failed, err: err}
	}
	return landing{err: err} // a connection's failure is nobody else's
}

// sameForAll: the server refused the statement for what it is or for its values.
func sameForAll(state string) bool {
	return len(state) == 5 && (state[:2] == "22" || state[:2] == "42")
}

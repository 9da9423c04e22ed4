package cachehook

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// expedition is what a flight's leader and its work share.
type expedition struct {
	fork   *hook.Record
	ctx    context.Context
	cancel func()
	why    missReason
	aging  *entry // that the work shall replace, or nil
	into   shape  // what the caller wants the result for; without a schema rows are wanted
	timer  *time.Timer

	c *Cache
	q *query
	s standing
	f *flight

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
	if c.store != nil && !s.asked {
		// Redis first, and here: the budget bounds it, and a goroutine takes half as much.
		var at level
		over := c.flights.short(name, f, func() (landing, bool) {
			e, from, waited := c.again(q, s.stamps, false, &s.why)
			r.Waited += waited
			at = from
			if e == nil {
				return landing{}, false
			}
			if _, not := e.value.(unstorable); not {
				return landing{}, true
			}
			return landing{verdict: landed, entry: e, fromL2: at == inRedis}, true
		})
		switch {
		case over && f.verdict == landed:
			return c.hit(ctx, r, q, f.entry, at)
		case over:
			c.missed(r, q, s.why)
			return r.Next(ctx)
		}
		s.asked = true
	}
	if took := q.plan.took.Load(); took != 0 && took <= c.quick {
		return c.leadOnSpot(ctx, r, q, s, f, name)
	}
	x := &expedition{why: s.why, c: c, q: q, s: s, f: f}
	c.embark(ctx, x, f)
	x.fork = r.Fork(x.ctx)
	x.into = q.wants(r)
	x.fork.Background, x.fork.Quiet = false, true
	var own bool
	x.fork.Args, own = ownArgs(r.Args)

	done := c.flights.landed(f)
	c.flights.start(name, f, x.work)
	select {
	case <-done:
	case <-ctx.Done():
		if tail := x.leave(); tail != nil {
			_ = tail.Close()
		}
		if !own { // the caller may change them from now on
			x.end()
		}
		return nil, ctx.Err()
	}
	switch {
	case f.verdict == landed && f.fromL2:
		r.Waited += x.fork.Waited
		return c.hit(ctx, r, q, f.entry, inRedis)
	case f.verdict == landed && x.fork.Node == nil:
		return c.hit(ctx, r, q, f.entry, inMemory)
	case f.panicked != nil:
		panic(f.panicked)
	}
	c.missed(r, q, x.why)
	r.Take(x.fork)
	switch tail := x.leave(); {
	case tail != nil:
		return c.hub.Load().Replay().Rows(ctx, tail)
	case f.verdict == landed:
		return c.show(ctx, r, f.entry)
	case f.err != nil:
		return nil, f.err
	}
	r.Outcome = hook.Database
	return r.Next(ctx)
}

// wants is what the result is wanted for; without a schema it is rows.
func (q *query) wants(r *hook.Record) shape {
	if q.mixed || !r.CanFill() {
		return shape{}
	}
	to, ok := shapeOf(r.DB.Statement)
	if !ok {
		return shape{}
	}
	return to
}

// embark gives the expedition a context that outlives ctx and ends with its time,
// or with the cache.
func (c *Cache) embark(ctx context.Context, x *expedition, f *flight) {
	x.ctx, x.cancel = context.WithCancel(context.WithoutCancel(ctx))
	x.timer = time.AfterFunc(c.cfg.FlightTimeout, x.cancel)
	c.flights.endBy(f, x.cancel)
}

// end ends the expedition's context.
func (x *expedition) end() {
	x.timer.Stop()
	x.cancel()
}

// work is the flight itself.
func (x *expedition) work() (landing, func()) {
	c, q, s := x.c, x.q, x.s
	done := false
	defer func() {
		if !done { // a panic, or Goexit
			x.fork.Finish(-1, errAborted)
		}
		x.mu.Lock()
		handed := x.tail != nil
		x.mu.Unlock()
		if !handed {
			x.end()
		}
	}()
	e, at, waited := c.again(q, s.stamps, s.asked, &x.why)
	x.fork.Waited += waited
	if e != nil && (x.aging == nil || e != x.aging && c.now() < e.expires) {
		done = true
		if _, not := e.value.(unstorable); not {
			return landing{}, nil
		}
		return landing{verdict: landed, entry: e, fromL2: at == inRedis}, nil
	}
	began := c.now()
	got, rows, err := c.read(x.ctx, x.fork, q, s.stamps, x.into)
	done = true
	switch {
	case errors.Is(err, errUnstorable):
		c.keepUnstorable(q, s.stamps, began)
		x.timer.Stop() // the caller's own patience counts from now on
		c.flights.endBy(x.f, nil)
		tail := newRemainder(got.set, got.odd, rows, func(n int64, err error) {
			x.fork.Finish(n, err)
			x.end()
		})
		if !x.offer(tail) {
			_ = tail.Close()
		}
		return landing{}, nil
	case err != nil:
		x.fork.Finish(-1, err)
		return failure(x.ctx, x.fork, err), nil
	}
	x.fork.Finish(int64(got.rows), nil)
	e, after := c.keep(q, s.stamps, got, began)
	return landing{verdict: landed, entry: e}, after
}

// read asks the database under these stamps and reads what it answers; see record.
func (c *Cache) read(ctx context.Context, r *hook.Record, q *query, stamps []stamp, into shape) (got recorded, rows *sql.Rows, err error) {
	lsn, known := c.floors.floor(q.cells, stamps)
	if c.off&lsnSafeguard == 0 {
		r.NeedPrimary = !known
		r.NeedLSN(lsn)
	}
	if rows, err = r.Next(ctx); err != nil {
		return got, nil, err
	}
	got, err = record(rows, c.cfg.MaxResult, into, c.store != nil)
	if err != nil && !errors.Is(err, errUnstorable) {
		if rows, err = r.Again(ctx, err); err == nil {
			got, err = record(rows, c.cfg.MaxResult, into, c.store != nil)
		}
	}
	return got, rows, err
}

// keep fills memory with what was read, and returns what is left to do for L2.
func (c *Cache) keep(q *query, stamps []stamp, got recorded, began int64) (e *entry, after func()) {
	if c.off&stampSafeguard != 0 {
		stamps = c.lateStamps(q, stamps)
	}
	var value any = got.models
	var size int
	if got.models != nil {
		size = int(got.models.bytes)
	} else {
		got.set.mixed = q.mixed
		value, size = got.set, got.set.bytes()
	}
	var shared *payload
	if c.store != nil {
		shared = &payload{kind: kindRows, rows: got.set}
	}
	e, after = c.fill(q, stamps, value, size, began, shared)
	q.plan.took.Store(max(e.cost, 1))
	return e, after
}

// keepUnstorable lets those who ask next know that it cannot be stored.
func (c *Cache) keepUnstorable(q *query, stamps []stamp, began int64) {
	c.counts.bypass(reasonSize)
	q.tally.refused[fillSize].Add(1)
	c.memory.put(q.key, c.memory.newEntry(unstorable{}, 0, q.cells, stamps, began+int64(unstorableFor)))
}

// lateStamps is what goes wrong without the first safeguard: the stamps are those
// of the time at which the result is stored.
func (c *Cache) lateStamps(q *query, early []stamp) []stamp {
	if c.store == nil {
		return early
	}
	a, err := c.store.lookup(context.Background(), q.tags, "")
	if err != nil {
		return early
	}
	return a.stamps
}

var errAborted = errors.New("cachehook: the flight ended before its query did")

// failure says what an error means for those who wait.
func failure(ctx context.Context, r *hook.Record, err error) landing {
	var answered interface{ SQLState() string }
	switch {
	case r.Outcome == hook.Refused:
		return landing{verdict: refused, err: err}
	case ctx.Err() != nil: // the flight's time was up, or the cache is closing
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

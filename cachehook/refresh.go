package cachehook

import (
	"bytes"
	"context"
	"database/sql"
	"hash/maphash"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// due reports whether a hit of the entry should have it read anew: when its TTL
// has ended and it is served stale, and by chance before, after XFetch
// (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
// Prevention, VLDB 2015): at a time t before its end with the probability
// exp(-t / (cost * beta)).
func (c *Cache) due(q *query, e *entry, now int64) bool {
	left := e.expires - now
	if left <= 0 {
		return q.stale > 0
	}
	beta := c.cfg.EarlyRefresh
	if beta <= 0 || e.cost == 0 {
		return false
	}
	mean := float64(e.cost) * 1000 * beta
	return float64(left) < 40*mean && float64(left) <= mean*rand.ExpFloat64()
}

// refresh reads the entry's rows anew in the background, under the stamps that it
// carries: what a write overtakes is not kept. It does nothing while the same
// is read already, for a second after it failed, and where the caller could
// change an argument meanwhile.
func (c *Cache) refresh(ctx context.Context, r *hook.Record, q *query, e *entry) {
	if !c.refreshes.may(q.key, c.now()) {
		return
	}
	args, own := ownArgs(r.Args)
	if !own {
		return
	}
	again := *q
	again.key = bytes.Clone(q.key) // its buffer is another's by then
	again.adopt(e)
	again.args = nil
	stamps := e.stamps()
	name := flightName(again.key, stamps)
	f, leads := c.flights.join(name)
	if !leads {
		return
	}
	x := &expedition{aging: e, gone: true, c: c, q: &again, f: f}
	c.embark(ctx, x, f)
	x.fork = r.Fork(x.ctx)
	x.fork.Args, x.fork.Scope, x.fork.Parent = args, nil, nil // it is no part of the request any more
	// Before the TTL ends Redis has got the same; after it perhaps what another
	// instance has read.
	x.s = standing{stamps: stamps, asked: c.now() < e.expires}
	c.flights.start(name, f, func() (landed landing, after func()) {
		// A panic or Goexit leaves it so.
		c.refreshes.pause(again.key, c.now()+int64(refreshPause))
		landed, after = x.work()
		if landed.entry != nil {
			c.refreshes.pause(again.key, 0)
		}
		if landed.entry != nil && (landed.fromL2 || x.fork.Node != nil) { // and not by another just now
			again.tally.refreshes.Add(1)
		}
		return landed, after
	})
}

const refreshPause = time.Second

// refreshes remembers for which keys a refresh has failed a short time ago. Keys
// may share a place: then one of them is read anew a little later.
type refreshes struct {
	seed  maphash.Seed
	until [256]atomic.Int64 // on the cache's clock
}

func (p *refreshes) at(key []byte) *atomic.Int64 {
	return &p.until[maphash.Bytes(p.seed, key)%uint64(len(p.until))]
}

func (p *refreshes) may(key []byte, now int64) bool { return now >= p.at(key).Load() }

func (p *refreshes) pause(key []byte, until int64) { p.at(key).Store(until) }

// ownArgs returns arguments that stay what they are when the caller goes on. own
// is false when there is one that cannot be had.
func ownArgs(args []any) (kept []any, own bool) {
	own, kept = true, args
	for i, arg := range args {
		switch v := arg.(type) {
		case nil, string, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64, time.Time:
		case sql.NullString, sql.NullInt64, sql.NullInt32, sql.NullInt16, sql.NullByte, sql.NullFloat64, sql.NullBool, sql.NullTime:
		case []byte:
			if &kept[0] == &args[0] {
				kept = append([]any(nil), args...)
			}
			kept[i] = bytes.Clone(v)
		default:
			own = own && constant(arg)
		}
	}
	return kept, own
}

// constant reports whether a value of the type holds nothing that could change.
func constant(arg any) bool {
	switch reflect.TypeOf(arg).Kind() {
	case reflect.Bool, reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return true
	}
	return false
}

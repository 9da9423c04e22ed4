package cachehook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// Fetch returns what is cached under key, or calls load, keeps what it returns
// for at most ttl and returns it. Callers that miss at the same time wait for
// one load. The tags are noted before load runs: if one is invalidated meanwhile
// the value is returned, and not kept.
//
// A value is the caller's own: types that hold no pointers, slices or maps are
// copied as they are, []byte is cloned, and all others go through JSON, so that
// what is unexported or tagged json:"-" is lost. load must use the context that it
// gets: its reads then go where the latest write of the tags has been replayed, or to
// the primary. It must not read inside a transaction that has written.
//
// A value that is in use is loaded anew in the background, as the results of queries
// are: by [Config.EarlyRefresh] shortly before its time ends, and after that for as
// long as [StaleFor] among the options, or else the rules of all its tables, let it be
// served meanwhile; never across an invalidation. One such load is under way in an
// instance, for [Config.FlightTimeout] at most, none for a second after a failed one,
// and its error or panic is the log's. load then runs on when Fetch has
// returned: where either is in use it must not touch what the caller goes on to
// change. Its context has the values of the caller's and not its end, and belongs to no
// request.
//
// [TTL] and [Tags] among the options stand for ttl, and add to tags. By a negative time
// nothing is kept, and load is called each time; what is above [Config.MaxResult] is
// loaded each time too, and counted in Stats.
//
// A load that fetches the key it is called for is called again.
//
// An error of load is returned and not kept. A nil or closed cache loads.
func Fetch[T any](ctx context.Context, c *Cache, key string, ttl time.Duration, tags []string, load func(context.Context) (T, error), options ...Option) (T, error) {
	var zero T
	if c == nil || !c.usable() {
		return load(ctx)
	}
	terms := terms{ttl: ttl, stale: c.staleByRules(tags)}
	if len(options) > 0 {
		var o option
		for _, given := range options {
			if given != nil {
				o = given.in(o)
			}
		}
		terms.overrule(o)
		tags = slices.Concat(tags, o.tags)
	}
	who := c.tenantOf(ctx)
	resolved, by, known, err := c.resolve(ctx, who, tags)
	if err != nil {
		return zero, err
	}
	if !known || terms.ttl < 0 {
		return load(ctx)
	}
	form := formOf(reflect.TypeFor[T]())
	kind := reflect.TypeFor[T]().String()
	if terms.stale > 0 { // Redis tells of the end with that time, and entries have to agree on it
		kind += " stale " + terms.stale.String()
	}
	q := query{key: handKey(who, kind, key, resolved), terms: terms, kind: kindBlob}
	q.cells, q.tags = c.handCells(resolved)
	q.tally = c.tallies.first(q.cells)
	s := c.find(ctx, &q)
	switch {
	case s.entry != nil:
		q.tally.hit(s.level)
		if q.stale > 0 && s.now >= s.entry.expires {
			q.tally.stale.Add(1)
		}
		if c.due(&q, s.entry, s.now) {
			refetch(ctx, c, &q, s.entry, form, load)
		}
		return unpack[T](s.entry, form)
	case s.stamps == nil:
		return load(ctx)
	}
	if by != nil {
		if why, ok := c.keeps(ctx, by, s.stamps); !ok {
			c.counts.bypass(why)
			return load(ctx)
		}
	}
	name := flightName(q.key, s.stamps)
	f, leads := c.flights.join(name)
	if !leads && aboard(ctx, f) {
		return load(ctx)
	}
	if leads {
		q.tally.misses[s.why].Add(1)
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.FlightTimeout)
		outer, _ := ctx.Value(aboardKey{}).(*passenger)
		fctx = context.WithValue(fctx, aboardKey{}, &passenger{f, outer})
		closing := context.AfterFunc(c.life, cancel)
		c.flights.start(name, f, func() (landing, func()) {
			defer cancel()
			defer closing()
			return fetchWork(fctx, c, &q, s, form, load, nil)
		})
	}
	if !c.flights.wait(ctx, f, 0) {
		return zero, ctx.Err()
	}
	switch {
	case f.verdict == landed:
		if !leads {
			q.tally.shared.Add(1)
		}
		return unpack[T](f.entry, form)
	case leads && f.panicked != nil:
		panic(f.panicked)
	case leads && f.err != nil:
		return zero, f.err
	}
	return load(ctx)
}

// passenger is who works for a flight, perhaps for one in which another one waits. It
// must not wait for any of them.
type passenger struct {
	of    *flight
	outer *passenger
}

type aboardKey struct{}

// aboard reports whether ctx is that of the flight's own work.
func aboard(ctx context.Context, f *flight) bool {
	p, _ := ctx.Value(aboardKey{}).(*passenger)
	for ; p != nil; p = p.outer {
		if p.of == f {
			return true
		}
	}
	return false
}

// fetchWork is the flight itself. aging is the entry that it shall replace, or nil.
func fetchWork[T any](ctx context.Context, c *Cache, q *query, s standing, form form, load func(context.Context) (T, error), aging *entry) (landing, func()) {
	if e, at, _ := c.again(q, s.stamps, s.asked, &s.why); e != nil && (aging == nil || e != aging && c.now() < e.expires) {
		return landing{verdict: landed, entry: e, fromL2: at == inRedis}, nil
	}
	if lsn, known := c.floors.floor(q.cells, s.stamps); c.off&lsnSafeguard == 0 {
		ctx = hook.WithFresh(ctx, !known, lsn)
	}
	began := c.now()
	v, err := load(ctx)
	if err != nil {
		return landing{err: err}, nil
	}
	blob, err := form.encode(v)
	p := &payload{kind: kindBlob, blob: blob}
	var value any = blob
	switch {
	case form == formPlain:
		if value = v; err != nil { // such as NaN: for memory alone
			p = nil
		}
	case err != nil:
		return landing{err: fmt.Errorf("cachehook: Fetch %T: %w", v, err)}, nil
	}
	e, after := c.fill(q, s.stamps, value, len(blob)+16, began, p)
	return landing{verdict: landed, entry: e}, after
}

// form says how values of a type are kept.
type form uint8

const (
	formJSON  form = iota
	formPlain      // in memory as they are: copying is enough
	formBytes
)

var forms sync.Map // reflect.Type -> form

func formOf(t reflect.Type) form {
	if f, ok := forms.Load(t); ok {
		return f.(form)
	}
	f := formJSON
	switch {
	case t == reflect.TypeFor[[]byte]():
		f = formBytes
	case plain(t):
		f = formPlain
	}
	forms.Store(t, f)
	return f
}

// plain reports whether a copy of a value shares nothing with it that could be
// changed, and JSON keeps all of it for L2.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return true
	}
	return false
}

func (f form) encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		if f == formBytes {
			return bytes.Clone(v), nil
		}
	case string:
		return []byte(v), nil // JSON would mend invalid UTF-8
	}
	return json.Marshal(v)
}

// unpack makes the caller's own value of an entry.
func unpack[T any](e *entry, f form) (v T, err error) {
	if f == formPlain {
		if kept, ok := e.value.(T); ok {
			return kept, nil
		}
	}
	blob, ok := e.value.([]byte)
	if !ok {
		return v, fmt.Errorf("cachehook: Fetch: a %T is kept under the key: %w", e.value, errCorrupt)
	}
	switch own := any(&v).(type) {
	case *[]byte:
		*own = bytes.Clone(blob)
	case *string:
		*own = string(blob)
	default:
		err = json.Unmarshal(blob, &v)
	}
	return v, err
}

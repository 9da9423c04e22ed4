package cachehook

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

// handKey is the key of what is cached by hand.
func handKey(kind, key string, tags []string) []byte {
	b := appendString(append(make([]byte, 0, 64+len(key)), 'h'), kind)
	b = binary.AppendUvarint(appendString(b, key), uint64(len(tags)))
	for _, tag := range tags {
		b = appendString(b, tag)
	}
	return b
}

// Get returns a copy of what [Cache.Set] has put under key, if it is there and
// none of its tags has been invalidated since. With Redis it may take a round
// trip, or two.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, bool) {
	if !c.usable() {
		return nil, false
	}
	name := handKey("set", key, nil)
	var tags []string
	if e := c.memory.get(name); e != nil {
		for _, d := range e.deps {
			tags = append(tags, d.cell.tag)
		}
	} else if c.store != nil {
		a, err := c.store.fetch(ctx, l2Name(name))
		if err != nil || a.data == nil {
			return nil, false
		}
		p, err := decode(a.data)
		if err != nil || p.kind != kindBlob {
			c.counts.corrupt.Add(1)
			return nil, false
		}
		tags = p.tags
	}
	q := query{key: name, kind: kindBlob}
	q.cells, q.tags = c.handCells(tags)
	s := c.find(ctx, &q)
	if s.entry == nil && s.stamps != nil && !s.asked {
		s.entry, s.level = c.again(&q, s.stamps, false)
	}
	if s.entry == nil {
		return nil, false
	}
	c.counts.hit(s.level)
	b, ok := s.entry.value.([]byte)
	return bytes.Clone(b), ok
}

// Set puts a copy of v under key for at most ttl; zero: as long as the levels
// allow. It is gone when one of the tags is invalidated, or a table whose
// [Table] tag is among them is written.
//
// What v was made of may have changed before Set is called, and Set cannot know:
// where that matters use [Fetch], which notes the tags before it reads.
func (c *Cache) Set(ctx context.Context, key string, v []byte, ttl time.Duration, tags ...string) error {
	if !c.usable() {
		return nil
	}
	resolved, known, err := c.resolve(ctx, tags)
	if err != nil || !known {
		return err
	}
	q := query{key: handKey("set", key, nil), ttl: ttl, kind: kindBlob}
	q.cells, q.tags = c.handCells(resolved)
	began := c.now()
	s := c.find(ctx, &query{key: handKey("none", "", nil), kind: kindBlob, cells: q.cells, tags: q.tags})
	if s.stamps == nil {
		return nil // a writer is at work, or Redis is down: nothing is kept
	}
	blob := bytes.Clone(v)
	_, after := c.fill(&q, s.stamps, blob, len(blob), began, &payload{kind: kindBlob, blob: blob})
	if after != nil {
		after()
	}
	return nil
}

// Fetch returns what is cached under key, or calls load, keeps what it returns
// for at most ttl and returns it. Callers that miss at the same time wait for
// one load. The tags are noted before load runs: if one is invalidated meanwhile
// the value is returned, and not kept.
//
// A value is the caller's own: types that hold no pointers, slices or maps are
// copied as they are, []byte is cloned, and all others go through JSON, so that
// what is unexported or tagged json:"-" is lost. load must not read inside a
// transaction that has written.
//
// An error of load is returned and not kept. A nil or closed cache loads.
func Fetch[T any](ctx context.Context, c *Cache, key string, ttl time.Duration, tags []string, load func(context.Context) (T, error)) (T, error) {
	var zero T
	if c == nil || !c.usable() {
		return load(ctx)
	}
	resolved, known, err := c.resolve(ctx, tags)
	if err != nil {
		return zero, err
	}
	if !known {
		return load(ctx)
	}
	form := formOf(reflect.TypeFor[T]())
	q := query{key: handKey(reflect.TypeFor[T]().String(), key, resolved), ttl: ttl, kind: kindBlob}
	q.cells, q.tags = c.handCells(resolved)
	s := c.find(ctx, &q)
	switch {
	case s.entry != nil:
		c.counts.hit(s.level)
		return unpack[T](s.entry, form)
	case s.stamps == nil:
		return load(ctx)
	}
	name := flightName(q.key, s.stamps)
	f, leads := c.flights.join(name)
	if leads {
		c.counts.misses.Add(1)
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.FlightTimeout)
		closing := context.AfterFunc(c.life, cancel)
		c.flights.start(name, f, func() (landing, func()) {
			defer cancel()
			defer closing()
			return fetchWork(fctx, c, &q, s, form, load)
		})
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return zero, ctx.Err()
	}
	switch {
	case f.verdict == landed:
		if !leads {
			c.counts.shared.Add(1)
		}
		return unpack[T](f.entry, form)
	case leads && f.panicked != nil:
		panic(f.panicked)
	case leads && f.err != nil:
		return zero, f.err
	}
	return load(ctx)
}

func fetchWork[T any](ctx context.Context, c *Cache, q *query, s standing, form form, load func(context.Context) (T, error)) (landing, func()) {
	if e, _ := c.again(q, s.stamps, s.asked); e != nil {
		return landing{verdict: landed, entry: e}, nil
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

// resolve checks the caller's tags and expands those of tables as the catalogue
// tells. known is false when a table is not known, or what it depends on: then
// nothing may be cached.
func (c *Cache) resolve(ctx context.Context, tags []string) (resolved []string, known bool, err error) {
	var tables []string
	for _, tag := range tags {
		if err := checkTag(tag); err != nil {
			return nil, false, err
		}
		name, table := strings.CutPrefix(tag, tablePrefix)
		if !table {
			resolved = append(resolved, tag)
			continue
		}
		cat := c.catalog.get(ctx, true)
		if cat == nil {
			return nil, false, nil
		}
		more, why := cat.readTags([]sqltext.Table{{Name: name}})
		if why != "" {
			return nil, false, nil
		}
		tables = append(tables, more...)
	}
	if len(tables) > 0 {
		tables = append([]string{everyTag, schemaTag}, compactTags(tables)...)
	}
	return append(tables, compactTags(resolved)...), true, nil
}

// handCells returns the cells of tags that resolve has returned.
func (c *Cache) handCells(tags []string) ([]*cell, []string) {
	cells := make([]*cell, len(tags))
	for i, tag := range tags {
		cells[i] = c.mirror.cell(tag, c.pins(tag))
	}
	return cells, tags
}

// Invalidate makes everything unusable that was cached under one of the tags, in
// all instances, before it returns: on this one at once, on others within Lease.
// An error says that Redis could not be told yet; this instance serves nothing
// of the tags until it has been.
func (c *Cache) Invalidate(ctx context.Context, tags ...string) error {
	for _, tag := range tags {
		if err := checkTag(tag); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.invalidate(compactTags(foldTags(tags)))
}

// InvalidateTables is what a write of the tables does: for programs that write
// past the plugin.
func (c *Cache) InvalidateTables(ctx context.Context, tables ...string) error {
	cat := c.catalog.get(ctx, c.hub.Load() != nil)
	var tags []string
	for _, name := range tables {
		schema, table, qualified := strings.Cut(name, ".")
		if !qualified {
			schema, table = "", name
		}
		st := &sqltext.Statement{Operation: sqltext.Truncate, Writes: []sqltext.Table{{Schema: schema, Name: table}}}
		more, _ := cat.writeTags([]*sqltext.Statement{st}, c.cfg.Affects)
		tags = append(tags, more...)
	}
	return c.invalidate(compactTags(tags))
}

// usable reports whether anything is cached at present.
func (c *Cache) usable() bool { return c.fault == nil && !c.cfg.Disabled && !c.closed.Load() }

// foldTags writes the tags of tables as the plugin does.
func foldTags(tags []string) []string {
	folded := slices.Clone(tags)
	for i, tag := range folded {
		if name, ok := strings.CutPrefix(tag, tablePrefix); ok {
			folded[i] = tableTag(name)
		}
	}
	return folded
}

func compactTags(tags []string) []string {
	tags = slices.Clone(tags)
	slices.Sort(tags)
	return slices.Compact(tags)
}

package cachehook

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

// handKey is the key of what is cached by hand.
func handKey(who tenant, kind, key string, tags []string) []byte {
	b := appendString(who.append(append(make([]byte, 0, 64+len(key)+len(who.key)), 'h')), kind)
	b = binary.AppendUvarint(appendString(b, key), uint64(len(tags)))
	for _, tag := range tags {
		b = appendString(b, tag)
	}
	return b
}

// Get returns a copy of what [Cache.Set] has put under key, if it is there and
// none of its tags has been invalidated since. With Redis it may take a round
// trip, or two. The context's tenant is part of the key, here as in Set and Fetch.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, bool) {
	if !c.usable() {
		return nil, false
	}
	name := handKey(c.tenantOf(ctx), "set", key, nil)
	var tags []string
	if e := c.memory.get(name); e != nil {
		for i := range e.dependsOn() {
			tags = append(tags, e.dep(i).cell.tag)
		}
	} else if c.store != nil {
		a, err := c.store.fetch(ctx, l2Name(name))
		if err != nil || a.data == nil {
			return nil, false
		}
		p, err := decode(a.data)
		if err == nil && p.kind != kindBlob {
			err = errCorruptMismatch
		}
		if err != nil {
			c.counts.unreadable(err)
			return nil, false
		}
		tags = p.tags
	}
	q := query{key: name, kind: kindBlob}
	q.cells, q.tags = c.handCells(tags)
	q.tally = c.tallies.first(q.cells)
	s := c.find(ctx, &q)
	if s.entry == nil && s.stamps != nil && !s.asked {
		s.entry, s.level, _ = c.again(&q, s.stamps, false, &s.why)
	}
	if s.entry == nil {
		return nil, false
	}
	q.tally.hit(s.level)
	b, ok := s.entry.value.([]byte)
	return bytes.Clone(b), ok
}

// Set puts a copy of v under key for at most ttl; zero: as long as the levels
// say. It is gone when one of the tags is invalidated, or a table whose
// [Table] tag is among them is written. To delete a value give it a tag of its own.
//
// An error says what of the arguments can never be kept: a negative ttl, a tag, or a
// value above [Config.MaxResult]. That it is not kept for a while, because Redis is down
// or a tag is being written, is no error.
//
// What v was made of may have changed before Set is called, and Set cannot know:
// where that matters use [Fetch], which notes the tags before it reads.
func (c *Cache) Set(ctx context.Context, key string, v []byte, ttl time.Duration, tags ...string) error {
	if !c.usable() {
		return nil
	}
	switch {
	case ttl < 0:
		return fmt.Errorf("cachehook: Set: ttl is %v: must not be negative", ttl)
	case len(v) > c.cfg.MaxResult:
		return fmt.Errorf("cachehook: Set: the value has %d bytes: must be at most %d, by MaxResult", len(v), c.cfg.MaxResult)
	}
	who := c.tenantOf(ctx)
	resolved, by, known, err := c.resolve(ctx, who, tags)
	if err != nil || !known {
		return err
	}
	q := query{key: handKey(who, "set", key, nil), terms: terms{ttl: ttl}, kind: kindBlob}
	q.cells, q.tags = c.handCells(resolved)
	q.tally = c.tallies.first(q.cells)
	began := c.now()
	s := c.find(ctx, &query{key: handKey(who, "none", "", nil), kind: kindBlob, cells: q.cells, tags: q.tags, tally: q.tally})
	if s.stamps == nil {
		return nil // a writer is at work, or Redis is down: nothing is kept
	}
	if by != nil {
		if why, ok := c.keeps(ctx, by, s.stamps); !ok {
			c.counts.bypass(why)
			return nil
		}
	}
	blob := bytes.Clone(v)
	_, after := c.fill(&q, s.stamps, blob, len(blob), began, &payload{kind: kindBlob, blob: blob})
	if after != nil {
		after()
	}
	return nil
}

// resolve checks the caller's tags and expands those of tables as the catalogue
// tells, which it returns if there are any. known is false when a table is not known, or what it depends on, or when
// it is under row-level security and there is no tenant: then nothing may be
// cached.
func (c *Cache) resolve(ctx context.Context, who tenant, tags []string) (resolved []string, by *catalog, known bool, err error) {
	var tables []string
	for _, tag := range tags {
		if err := checkTag(tag); err != nil {
			return nil, nil, false, err
		}
		name, table := strings.CutPrefix(tag, tablePrefix)
		if !table {
			resolved = append(resolved, tag)
			continue
		}
		if by == nil {
			by = c.catalogByHand(ctx)
		}
		if by == nil {
			return nil, nil, false, nil
		}
		read := by.readsOf(name, c.cfg.Functions)
		if read.why != "" {
			return nil, nil, false, nil
		}
		if read.secured != "" && !who.named() {
			c.counts.bypass(reasonTenant)
			return nil, nil, false, nil
		}
		tables = append(tables, read.tags...)
	}
	if len(tables) > 0 {
		tables = append([]string{everyTag, schemaTag}, compactTags(tables)...)
	} else {
		tables = serverAlone
	}
	return append(tables, compactTags(resolved)...), by, true, nil
}

// serverAlone is what a value without tags depends on. There is no room behind it.
var serverAlone = []string{serverTag}

// catalogByHand returns the catalogue, or nil: also before db.Use, for what is made of
// names alone would be taken for the database's afterwards.
func (c *Cache) catalogByHand(ctx context.Context) *catalog {
	if c.hub.Load() == nil {
		return nil
	}
	return c.catalog.get(ctx, true)
}

// handCells returns the cells of tags that resolve has returned.
func (c *Cache) handCells(tags []string) ([]*cell, []string) {
	if len(tags) == 1 && tags[0] == serverTag {
		return c.server, tags
	}
	cells := make([]*cell, len(tags))
	for i, tag := range tags {
		cells[i] = c.mirror.cell(tag, c.pins(tag))
	}
	return cells, tags
}

// Invalidate makes everything unusable that was cached under one of the tags, in
// all instances, before it returns: on this one at once, on others within Lease.
// An error says that Redis could not be told yet; this instance serves nothing
// of the tags until it has been. With Redis a closed cache tells nobody, which is an
// error too. A nil cache has nothing.
func (c *Cache) Invalidate(ctx context.Context, tags ...string) error {
	if c == nil {
		return nil
	}
	for _, tag := range tags {
		if err := checkTag(tag); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var tables, own []string
	for _, tag := range foldTags(tags) {
		if name, ok := strings.CutPrefix(tag, tablePrefix); ok {
			tables = append(tables, name)
		} else {
			own = append(own, tag)
		}
	}
	of, by := c.tagsOfTables(ctx, tables)
	return c.invalidate(compactTags(append(own, of...)), by)
}

// InvalidateTables is what a write of all rows of the tables does, on what depends on
// them and on what a declared or a foreign key's action changes with them: for programs
// that write past the plugin. A name may lead with its schema; one that the database has
// not got empties everything, and so does each where the catalogue cannot be read. It
// blocks for the catalogue where it is not known, a second at most, and for Redis;
// errors are those of [Cache.Invalidate].
func (c *Cache) InvalidateTables(ctx context.Context, tables ...string) error {
	if c == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	tags, by := c.tagsOfTables(ctx, tables)
	return c.invalidate(compactTags(tags), by)
}

// InvalidateAll makes all that is cached unusable in all instances, by queries and by
// hand, of all tenants, and has each read the database's catalogue anew: for what the
// plugin has not seen and nobody can list, such as a migration or a restore. It works
// before db.Use too, so that a program needs no database to tell the others; then nobody
// repeats what has failed. Errors are those of [Cache.Invalidate].
func (c *Cache) InvalidateAll(ctx context.Context) error {
	if c == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := c.invalidate([]string{everyTag, schemaTag, serverTag}, nil)
	c.catalog.forget() // others do when they hear of the schema
	return err
}

// tagsOfTables returns what a write of the whole tables bumps, and the catalogue that
// says so.
func (c *Cache) tagsOfTables(ctx context.Context, tables []string) (tags []string, by *catalog) {
	if len(tables) == 0 {
		return nil, nil
	}
	by = c.catalogByHand(ctx)
	for _, name := range tables {
		st := &sqltext.Statement{Operation: sqltext.Truncate, Writes: []sqltext.Table{tableNamed(name)}}
		more, _, why := by.writeTags(written{statements: []*sqltext.Statement{st}}, c.cfg.Affects)
		c.noteEmptied(why)
		tags = append(tags, more...)
	}
	return tags, by
}

// ownTags resolves the tags of tables among a caller's own; known is false when
// one is not known.
func (c *Cache) ownTags(tags []string, cat *catalog) (resolved []string, known bool) {
	if !slices.ContainsFunc(tags, isTable) {
		return tags, true
	}
	for _, tag := range tags {
		name, table := strings.CutPrefix(tag, tablePrefix)
		if !table {
			resolved = append(resolved, tag)
			continue
		}
		read := cat.readsOf(name, c.cfg.Functions)
		if read.why != "" {
			return nil, false
		}
		resolved = append(resolved, read.tags...)
	}
	return compactTags(resolved), true
}

// usable reports whether anything is cached at present.
func (c *Cache) usable() bool {
	return c != nil && c.fault == nil && !c.cfg.Disabled && !c.closed.Load() && !c.paused.Load()
}

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

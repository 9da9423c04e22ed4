package cachehook

import (
	"context"
	"sync/atomic"
	"time"
)

// A write goes by a catalogue, which says what it changes besides. That may be
// older than the database's schema: another instance may have added a foreign key
// with ON DELETE CASCADE since, or a trigger, or a partition. Two things keep such
// a write from leaving something stale.
//
// The roster names the schema, by the stamp of its tag. Results are stored under
// a stamp only when the roster names it and everybody on it has acknowledged that;
// an instance does so only when none of its writes under way goes by an earlier
// catalogue. So nobody stores what such a write is about to change, and a writer
// that dies is waited for as long as its marks would stand.
//
// And a write that tells Redis looks at the schema's tag in the same round trip: at
// its stamp always, and at its mark when the roster does not wait for this instance.
// When it finds anything but the stamp of its catalogue it tells of everything.
//
// DDL itself waits for nobody.

// rosterSchema is the roster's part in that. The roster's mutex guards what is not
// atomic.
type rosterSchema struct {
	present func() *catalog // this instance's own, or nil; never blocks
	drop    func(*catalog)  // it is outdated

	named    stamp // by the roster, as far as this instance knows; zero: none
	learnt   int64 // when that was, on the clock
	admitted atomic.Pointer[stamp]
}

// schemaPatience is for how long writes that go by an earlier catalogue are waited
// for. One that takes longer looks at the schema's tag at its end.
const schemaPatience = markTTL

// basis is what a write goes by.
type basis struct {
	schema stamp // of the catalogue
	since  stamp // that the roster named when the reading of the catalogue began
}

func (c *catalog) basis() basis { return basis{c.schema, c.since} }

// upToDate reports whether a catalogue is not older than the schema that the roster
// names: it is that one's, or was read since the name is known here. A name is known
// when its stamp has been the tag's, so what was looked at later is not earlier.
func (s *rosterSchema) upToDate(b basis) bool {
	return s.named != stamp{} && (b.schema == s.named || b.since == s.named)
}

// outdates reports whether the write has to be waited for before the named schema
// is acknowledged.
func (s *rosterSchema) outdates(o *omission) bool {
	return !o.letGo && s.named != stamp{} && !s.upToDate(o.basis)
}

// proposes returns the schema that the roster shall name instead of the one that it
// does, or zero. Only one that was looked up since that is named: else two instances
// could rename it to and fro.
func (s *rosterSchema) proposes() (schema, replaces stamp) {
	c := s.present()
	if c == nil || c.schema == s.named || s.named != (stamp{}) && c.since != s.named {
		return stamp{}, stamp{}
	}
	return c.schema, s.named
}

// name takes what an answer names.
func (s *rosterSchema) name(schema stamp, now int64) {
	if schema != s.named {
		s.named, s.learnt = schema, now
	}
}

// admit lets results be stored under the named schema when everybody has
// acknowledged it, this instance's own writes included. It reports whether those of
// this instance's catalogue have yet to wait.
func (s *rosterSchema) admit(acknowledged bool) (waits bool) {
	if s.named == (stamp{}) {
		return s.present() != nil
	}
	if acknowledged && !s.admits(s.named) {
		schema := s.named
		s.admitted.Store(&schema)
	}
	c := s.present()
	if c == nil {
		return false
	}
	if !s.upToDate(c.basis()) {
		s.drop(c)
		return false
	}
	return c.schema != (stamp{}) && !s.admits(c.schema)
}

// admits reports whether results may be stored under the schema's stamp.
func (s *rosterSchema) admits(schema stamp) bool {
	a := s.admitted.Load()
	return a != nil && *a == schema
}

// named returns the schema that the roster names, as far as is known here.
func (r *roster) named() stamp {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.schema.named
}

// letGo gives up waiting for writes that have gone on for too long. What they
// leave out is told at their end.
func (r *roster) letGoLocked(now int64) {
	if now-r.schema.learnt < int64(schemaPatience) {
		return
	}
	for o := range r.leftOut {
		if r.schema.outdates(o) {
			o.letGo = true
		}
	}
}

// outdated drops a catalogue that is not the present schema's. One that was read
// while its tag was marked, or could not be looked at, is read again before long.
func (c *Cache) outdated(by *catalog) {
	if by != nil && by.schema != (stamp{}) {
		c.catalog.drop(by)
	}
}

// keeps reports whether what is read now under the stamps of a query, which begin
// with those of everyTag and schemaTag, may be kept when its tags are by's; and if
// not so, why. It waits for the roster as enroll does.
func (c *Cache) keeps(ctx context.Context, by *catalog, stamps []stamp) (why reason, ok bool) {
	switch {
	case stamps[1] != by.schema:
		// DDL of another instance that nobody told us of.
		c.catalog.drop(by)
		return reasonCatalog, false
	case c.roster == nil || c.roster.schema.admits(by.schema):
		return 0, true
	}
	left := c.patience(ctx) - time.Duration(c.now()-by.kept)
	return reasonRoster, c.roster.wait(ctx, left, func() bool { return c.roster.schema.admits(by.schema) })
}

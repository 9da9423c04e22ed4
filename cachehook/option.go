package cachehook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// Option is what [TTL], [Tags] and [StaleFor] make: a clause for a query, and an
// option of [Fetch].
type Option interface {
	clause.Expression
	gorm.StatementModifier
	in(o option) option // o with what this one says
}

// TTL makes the query cached for at most d, whatever the rules of its tables and
// the levels say, and for at most 30 days; zero: for as long as the levels say;
// negative: not at all, as of a time that is over.
//
//	db.Clauses(cachehook.TTL(time.Minute)).Find(&products)
func TTL(d time.Duration) Option { return option{ttl: &d} }

// Tags makes the query cached under tags of the caller's own, besides those of
// its tables, for [Cache.Invalidate].
func Tags(tags ...string) Option { return option{tags: foldTags(tags)} }

// StaleFor makes the query cached, and lets its result be served for d after its
// TTL has ended while it is read anew in the background; see [Rule.StaleFor],
// which it overrules.
func StaleFor(d time.Duration) Option { return option{stale: &d} }

// option is a clause that writes no SQL. It stands among the statement's
// Clauses: Settings would be inherited by preloads.
type option struct {
	ttl   *time.Duration
	stale *time.Duration
	tags  []string
}

var _ Option = option{}

const optionClause = "infra:cache"

// Build implements clause.Expression; it writes nothing.
func (o option) Build(clause.Builder) {}

// ModifyStatement implements gorm.StatementModifier.
func (o option) ModifyStatement(stmt *gorm.Statement) {
	if before, ok := stmt.Clauses[optionClause].Expression.(option); ok {
		o = o.in(before)
	}
	stmt.Clauses[optionClause] = clause.Clause{Name: optionClause, Expression: o}
}

func (o option) in(before option) option {
	if o.ttl == nil {
		o.ttl = before.ttl
	}
	if o.stale == nil {
		o.stale = before.stale
	}
	o.tags = slices.Concat(before.tags, o.tags)
	return o
}

// overrule lets a query's terms be what its clauses say.
func (t *terms) overrule(o option) {
	if o.ttl != nil {
		t.ttl = *o.ttl
	}
	if o.stale != nil {
		t.stale = min(max(*o.stale, 0), maxTTL)
	}
}

// optionOf returns what the statement's clauses say.
func optionOf(stmt *gorm.Statement) (o option, given bool) {
	if len(stmt.Clauses) == 0 {
		return o, false
	}
	c, ok := stmt.Clauses[optionClause]
	if !ok {
		return o, false
	}
	o, given = c.Expression.(option)
	return o, given
}

type skipKey struct{}

// Skip lets the statements under the returned context neither read nor fill the
// cache. Their writes invalidate as always.
func Skip(ctx context.Context) context.Context { return context.WithValue(ctx, skipKey{}, true) }

func skipped(ctx context.Context) bool { return ctx.Value(skipKey{}) != nil }

// Table is the tag of a table, for what is cached by hand: it is invalidated by
// every write of the table. Before db.Use nothing is kept under one.
func Table(name string) string { return tableTag(name) }

// checkTag reports a tag that cannot be used.
func checkTag(tag string) error {
	if tag == "" || tag == everyTag || tag == schemaTag || tag == serverTag || strings.ContainsAny(tag, tagSeparator+rowMark) {
		return fmt.Errorf("cachehook: tag %q: must not be empty, %q, %q, %q or contain a byte of value 0 or 1", tag, everyTag, schemaTag, serverTag)
	}
	return nil
}

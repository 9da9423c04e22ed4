package cachehook

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// This file puts decisions into words. It takes none.

// unservedWords says why no cache is asked for a statement, or "".
func unservedWords(r *hook.Record) (Reason, string) {
	switch r.Unserved() {
	case hook.Servable:
		return "", ""
	case hook.NoServer:
		return ReasonClosed, "the cache is closed"
	case hook.InTransaction:
		return ReasonTransaction, "it runs in a transaction, which sees its own writes"
	case hook.OtherPool:
		return ReasonConnection, "it runs on a connection of db.Connection, or on a pool that is not the plugin's"
	case hook.Bounded:
		return ReasonNode, "its context says of what node, or how fresh, the answer must be"
	}
	return ReasonStatement, statementWords(r)
}

// asks names what asks for the cache.
func (c *Cache) asks(r *hook.Record) (by []string) {
	if o, given := optionOf(r.DB.Statement); given {
		for name, set := range map[string]bool{"clause TTL": o.ttl != nil, "clause StaleFor": o.stale != nil, "clause Tags": len(o.tags) > 0} {
			if set {
				by = append(by, name)
			}
		}
	}
	for _, t := range r.Text.Reads {
		if _, ok := c.rule(t.Name); ok {
			by = append(by, fmt.Sprintf("rule %q", t.Name))
		}
	}
	slices.Sort(by)
	return slices.Compact(by)
}

// unaskedWords explains what unasked has said.
func (c *Cache) unaskedWords(why Reason, r *hook.Record) string {
	switch why {
	case ReasonStatement:
		return statementWords(r)
	case ReasonSession:
		return "the role of a session was changed by a SET, which stays with its connection in the pool"
	case ReasonNode:
		return "its clauses name the node"
	case ReasonSkip:
		if skipped(r.Context) {
			return "its context comes from Skip"
		}
		return "the time of its TTL clause is negative"
	case ReasonRule:
		var without []string
		for _, t := range r.Text.Reads {
			if _, ok := c.rule(t.Name); !ok {
				without = append(without, t.String())
			}
		}
		return "no clause asks for it, and there is no rule for " + strings.Join(without, ", ")
	case ReasonPaused:
		return "the cache is paused, by Pause"
	}
	return "the cache is closed"
}

// statementWords says what makes a text no read whose answer tables and parameters
// decide.
func statementWords(r *hook.Record) string {
	t := r.Text
	switch {
	case t.Operation == sqltext.Unknown:
		return "its text is not understood"
	case t.Multiple:
		return "it is several statements"
	case t.MayWrite():
		return "it writes"
	case t.Locking:
		return "it locks"
	case t.Session:
		return "it changes or uses the state of its session"
	case t.Operation != sqltext.Select:
		return "it is no SELECT"
	case len(t.Reads) == 0:
		return "it reads no table"
	case t.System:
		return "it reads a system or temporary table"
	case t.Volatile:
		return "it calls a function that belongs on the primary, such as nextval"
	case t.Unstable:
		return "its answer changes by itself, as that of now(), random() or TABLESAMPLE"
	case r.Access == hook.Write:
		return "it calls a volatile function, by itself or in a view, or one that is not known"
	case r.Access != hook.ReadOnly:
		return "what follows depends on it: it is the look-up of FirstOrCreate, FirstOrInit or of a migrator"
	}
	return "it is sent in another way than a query is"
}

// bypassWords explains why decide has refused.
func (c *Cache) bypassWords(why reason, r *hook.Record, q *query) string {
	o, _ := optionOf(r.DB.Statement)
	switch why {
	case reasonTable:
		if q.plan.why != "" {
			return q.plan.why
		}
		for _, tag := range o.tags {
			if name, ok := strings.CutPrefix(tag, tablePrefix); ok {
				if read := q.plan.catalog.readsOf(name, c.cfg.Functions); read.why != "" {
					return fmt.Sprintf("tag %q: %s", tag, read.why)
				}
			}
		}
	case reasonCatalog:
		return "the catalogue of the database could not be read in time"
	case reasonTenant:
		return "the answer depends on who asks, by " + q.plan.secured + ", and no tenant is declared"
	case reasonTag:
		for _, tag := range o.tags {
			if err := checkTag(tag); err != nil {
				return strings.TrimPrefix(err.Error(), "cachehook: ")
			}
		}
	case reasonArgument:
		for i, arg := range r.Args {
			if s, ok := arg.(string); ok && moving(s) {
				return fmt.Sprintf("argument %d, %q, may be read as another date each time", i+1, s)
			}
			if _, ok := appendArg(nil, arg, 0); !ok {
				return fmt.Sprintf("argument %d is a %T, whose value only the driver can tell", i+1, arg)
			}
		}
	}
	return ""
}

// asModels reports whether a result with the columns that the statement names, or
// with its model's own, has a snapshot.
func asModels(r *hook.Record) bool {
	stmt := r.DB.Statement
	to, ok := shapeOf(stmt)
	if !ok || !r.CanFill() {
		return false
	}
	names := to.schema.DBNames
	if len(stmt.Selects) > 0 {
		names = stmt.Selects
	}
	return layoutNamed(to.schema, names) != nil
}

// String returns the statements with what is to be said of each, on several lines.
func (all Explanations) String() string {
	texts := make([]string, len(all))
	for i := range all {
		texts[i] = all[i].String()
	}
	return strings.Join(texts, "\n")
}

// String returns the statement, and below it what is to be said of it.
func (x Explanation) String() string {
	var b strings.Builder
	b.WriteString(x.SQL)
	line := func(what string, parts ...string) {
		if text := strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", "); text != "" {
			fmt.Fprintf(&b, "\n  %-12s %s", what, text)
		}
	}
	if !x.Cacheable {
		line("not cached", fmt.Sprintf("%s: %s", x.Reason, x.Why))
		line("asked by", x.By...)
		line("unseen", x.Unseen...)
		return b.String()
	}
	line("cached by", x.By...)
	tables := x.Tables
	if len(x.Rows) > 0 {
		line("depends on", strings.Join(x.Rows, ", ")+"; where one is not found on all of "+strings.Join(tables, ", "))
	} else {
		line("depends on", tables...)
	}
	line("tags", x.Tags...)
	line("unseen", x.Unseen...)
	line("for", x.times()...)
	line("kept as", x.form())
	if x.Key != nil {
		line("key", x.Key.words()...)
	}
	if p := x.Presence; p != nil {
		line("now", p.words(x.RedisTTL != 0)...)
	}
	return b.String()
}

func (x *Explanation) form() string {
	if x.Models {
		return "models"
	}
	return "rows, replayed to GORM"
}

func (x *Explanation) times() []string {
	times := []string{"memory " + x.MemoryTTL.String()}
	if x.RedisTTL != 0 {
		times = append(times, "Redis "+x.RedisTTL.String())
	}
	times = append(times, fmt.Sprintf("up to %.0f %% less", 100*x.Jitter))
	if x.NotFoundTTL < 0 {
		times = append(times, "not if nothing is found")
	} else {
		times = append(times, "nothing found "+x.NotFoundTTL.String())
	}
	if x.StaleFor > 0 {
		times = append(times, "stale for "+x.StaleFor.String())
	}
	switch {
	case x.Lease > 0:
		times = append(times, "lease "+x.Lease.String())
	case x.Lease < 0:
		times = append(times, "asking Redis at each hit")
	}
	return times
}

func (k *Key) words() []string {
	words := []string{k.Database, prefixed("user ", k.User)}
	if k.Role != k.User {
		words = append(words, prefixed("role ", k.Role))
	}
	for _, name := range slices.Sorted(maps.Keys(k.Settings)) {
		if name == "search_path" {
			words = append(words, name+" "+k.Settings[name])
		}
	}
	words = append(words, strings.Join(k.Relations, " "))
	if k.Tenant != nil {
		words = append(words, fmt.Sprintf("tenant %q", *k.Tenant))
	}
	return append(words, "into "+k.Destination)
}

func prefixed(what, value string) string {
	if value == "" {
		return ""
	}
	return what + value
}

// presenceWords explain the reasons that pass by themselves.
var presenceWords = map[Reason]string{
	ReasonRoster: "not all instances know yet that the table is cached",
	ReasonWriter: "it is being written, or its writer has died less than 5 s ago",
	ReasonRedis:  "Redis does not answer, or it is not known whether it is the same server as before",
	ReasonSize:   "the result was above MaxResult a moment ago",
}

func (p *Presence) words(redis bool) []string {
	if p.Reason != "" {
		return []string{fmt.Sprintf("nothing is served: %s: %s", p.Reason, presenceWords[p.Reason])}
	}
	words := []string{p.Memory.words("in memory", "")}
	if redis {
		words = append(words, p.Redis.words("in Redis", "at most "))
	}
	return words
}

func (h *Held) words(where, most string) string {
	switch {
	case h.Valid && h.Left < 0:
		return fmt.Sprintf("%s, %s%v old, stale", where, most, h.Age.Round(time.Millisecond))
	case h.Valid:
		return fmt.Sprintf("%s, %s%v old, for %v more", where, most, h.Age.Round(time.Millisecond), h.Left.Round(time.Millisecond))
	case h.Lacks == "":
		return "not " + where
	}
	return fmt.Sprintf("not %s (%s)", where, h.Lacks)
}

package cachehook

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

// terms are for how long a query's results are served. They are part of its key.
type terms struct {
	ttl      time.Duration // 0: as the levels say
	notFound time.Duration // 0: as Config says; negative: not at all
	stale    time.Duration // beyond the TTL, while it is read anew
	shared   bool          // by all tenants
}

// byRule reports whether every table that the text reads has a rule, and the
// shortest of their times.
func (c *Cache) byRule(text *sqltext.Statement) (t terms, ok bool) {
	if len(c.cfg.Tables) == 0 {
		return t, false
	}
	for i, table := range text.Reads {
		r, ok := c.rule(table.Name)
		if !ok {
			return terms{}, false
		}
		t.ttl = shorter(t.ttl, r.TTL)
		t.notFound = shorter(t.notFound, r.NotFoundTTL)
		t.shared = r.Shared && (i == 0 || t.shared)
		if i == 0 || r.StaleFor < t.stale {
			t.stale = r.StaleFor
		}
	}
	return t, true
}

// rule returns the rule of a table.
func (c *Cache) rule(table string) (r Rule, ok bool) {
	if r, ok = c.cfg.Tables[table]; !ok {
		r, ok = c.cfg.Tables[strings.ToLower(table)]
	}
	return r, ok
}

// shorter returns the shorter of two times, of which zero says nothing.
func shorter(a, b time.Duration) time.Duration {
	if b != 0 && (a == 0 || b < a) {
		return b
	}
	return a
}

func foldRules(rules map[string]Rule) map[string]Rule {
	folded := make(map[string]Rule, len(rules))
	for name, r := range rules {
		folded[strings.ToLower(name)] = r
	}
	return folded
}

// checkRules has the catalogue read at the first read that no rule is for: when
// no rule ever is for anything, nothing else would read it, and nobody would
// learn why. It does not wait.
func (c *Cache) checkRules() {
	if len(c.cfg.Tables) > 0 && !c.rulesChecked.Load() && !c.rulesChecked.Swap(true) {
		c.catalog.get(c.life, false)
	}
}

// warnOfRules names, once each, the tables that rules are for, or that Affects names,
// and the database has not got.
func (c *Cache) warnOfRules(cat *catalog) {
	if cat.trusting {
		return
	}
	known := make(map[string]bool, len(cat.relations))
	for name := range cat.relations {
		known[strings.ToLower(name)] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.cfg.Tables)) {
		if !known[name] && c.warnsOfLocked("Tables", name) {
			c.cfg.Logger.Warn("cachehook: Tables has a rule for a table that the database does not have: nothing is cached by it until there is one", "table", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.cfg.Affects)) {
		for _, name := range append([]string{name}, c.cfg.Affects[name]...) {
			if name = strings.ToLower(tableNamed(name).Name); !known[name] && c.warnsOfLocked("Affects", name) {
				c.cfg.Logger.Warn("cachehook: Affects names a table that the database does not have", "table", name)
			}
		}
	}
}

// warnsOfLocked reports whether the log has not named it yet.
func (c *Cache) warnsOfLocked(field, name string) bool {
	if slices.Contains(c.warnedOf, field+" "+name) {
		return false
	}
	c.warnedOf = append(c.warnedOf, field+" "+name)
	return true
}

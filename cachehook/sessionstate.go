package cachehook

import (
	"context"
	"slices"
	"strings"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// effect is what a statement does to the session that it runs in, and with it to
// whoever gets that connection of the pool next.
type effect uint8

const (
	noChange    effect = iota
	otherNames         // settings on which the meaning of a text may depend
	otherValues        // settings by which values are understood and written
	otherRole          // who asks, and so what may be read
)

// Gate implements hook.Gate. It refuses nothing. A SET outlives its statement on
// one connection of the pool, so that what is read there is not what others
// would read: this has to be known before the statement runs.
func (p part) Gate(_ context.Context, r *hook.Record) error {
	if r.Text != nil && (r.Text.Session || mayHideSet(r)) {
		p.c.sessionChanges(sessionChange(r), r.Text.Shape)
	}
	if r.Text != nil && len(r.Text.UnknownFunctions) > 0 {
		p.c.functionsChange(r.Text.UnknownFunctions)
	}
	return nil
}

// mayHideSet recognises statements that set something for the session by another
// name: DO, and an UPDATE of pg_settings.
func mayHideSet(r *hook.Record) bool {
	if r.Text.Opaque {
		return slices.ContainsFunc(wordsOf(r.SQL), func(w string) bool { return w == "set" || w == "reset" || w == "set_config" })
	}
	return writesSettings(r.Text)
}

// functionsChange is sessionChanges for functions whose text says set_config(…, false),
// as far as the catalogue is known. What such a function sets is not looked at.
func (c *Cache) functionsChange(names []string) {
	if cat := c.catalog.present.Load(); cat != nil {
		for _, name := range names {
			if cat.functions[name].sets {
				c.sessionChanges(otherNames, name+"()")
			}
		}
	}
}

// by is what does it, for the log: a statement without its values, or a function.
func (c *Cache) sessionChanges(what effect, by string) {
	switch {
	case what == otherNames && !c.varies.Swap(true):
		c.sessions.Add(1)
		c.catalog.forget()
		c.cfg.Logger.Warn("cachehook: the settings of a session may have been changed, which stays with its connection in the pool: until this process ends tables whose name is in several schemas are cached no more where a statement does not name the schema, and tables under row-level security not at all; use SET LOCAL in a transaction", "by", by)
	case what == otherValues && !c.roles.Swap(true):
		c.sessions.Add(1)
		c.cfg.Logger.Warn("cachehook: a setting of a session was changed by which values are written, as its time zone, and stays with its connection in the pool: no result is cached any more by this process; use SET LOCAL in a transaction, or set it for all connections", "by", by)
	case what == otherRole && !c.roles.Swap(true):
		c.sessions.Add(1)
		c.cfg.Logger.Warn("cachehook: the role of a session was changed, which stays with its connection in the pool: no result is cached any more by this process; use SET LOCAL in a transaction", "by", by)
	}
}

// harmless are settings that change no result.
var harmless = wordSet(`application_name client_min_messages constraints deadlock_timeout effective_cache_size
	from_collapse_limit join_collapse_limit idle_in_transaction_session_timeout idle_session_timeout jit lock_timeout
	maintenance_work_mem plan_cache_mode random_page_cost seq_page_cost statement_timeout synchronous_commit
	temp_buffers transaction transaction_timeout work_mem characteristics`)

func wordSet(words string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// sessionChange says what a statement with Text.Session does. What is not
// certainly harmless counts.
func sessionChange(r *hook.Record) effect {
	words := wordsOf(r.SQL)
	if r.Text.Multiple || r.Text.Opaque || writesSettings(r.Text) || strings.Contains(r.SQL, "--") || strings.Contains(r.SQL, "/*") {
		return worst(words, r.Args) // where which words stand is not certain
	}
	switch r.Text.Operation {
	case sqltext.Listen, sqltext.Prepare, sqltext.Cursor, sqltext.Show, sqltext.DDL:
		return noChange
	case sqltext.Set:
		if len(words) > 1 && harmlessSet(words) {
			return noChange
		}
		return worst(words, r.Args)
	}
	if !slices.Contains(words, "set_config") {
		if slices.Contains(words, "attach") || slices.Contains(words, "load") {
			return otherNames
		}
		return noChange // setseed, dblink_connect and the like
	}
	if localConfig(words, r.Args) {
		return noChange
	}
	return worst(words, r.Args)
}

func harmlessSet(words []string) bool {
	switch words[0] {
	case "set", "reset":
		name := words[1]
		if name == "session" && len(words) > 2 {
			name = words[2]
		}
		return name == "local" || harmless[name]
	case "discard":
		return words[1] != "all"
	}
	return words[0] == "pragma"
}

// localConfig recognises the one set_config whose effect ends with its
// transaction: its third argument is true, and the last word of the text.
func localConfig(words []string, args []any) bool {
	n := 0
	for _, w := range words {
		if w == "set_config" {
			n++
		}
	}
	if n != 1 {
		return false
	}
	last := words[len(words)-1]
	if last == "true" {
		return true
	}
	if len(args) == 0 || last != "?" && !strings.HasPrefix(last, "$") {
		return false
	}
	local, ok := args[len(args)-1].(bool)
	return ok && local
}

// worst looks for the role among the words and the arguments.
func worst(words []string, args []any) effect {
	if len(words) > 1 && words[0] == "discard" && words[1] == "all" {
		return otherRole // it sets the session's authorization anew
	}
	if slices.ContainsFunc(words, isRole) {
		return otherRole
	}
	what := otherNames
	for i, w := range words {
		if valueSettings[w] || w == "zone" && i > 0 && words[i-1] == "time" {
			what = otherValues
		}
	}
	for _, a := range args {
		s, _ := a.(string)
		switch s = strings.ToLower(s); {
		case isRole(s):
			return otherRole
		case valueSettings[s]:
			what = otherValues
		}
	}
	return what
}

// valueSettings are those that pgIdentity names, but for the search path, which no
// unqualified name of several schemas is trusted under.
var valueSettings = wordSet(`timezone datestyle intervalstyle extra_float_digits bytea_output lc_monetary lc_numeric
	lc_time default_text_search_config xmloption xmlbinary standard_conforming_strings array_nulls
	transform_null_equals row_security`)

func isRole(word string) bool {
	return word == "role" || word == "authorization" || word == "session_authorization"
}

// wordsOf splits a text at everything that is no letter, digit or part of a
// name or placeholder, in lower case.
func wordsOf(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '$' || r == '?' || r > 127)
	})
}

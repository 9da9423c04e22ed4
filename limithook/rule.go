package limithook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/gorminfra/infra/internal/scope"
)

// maxRules bounds Config.Rules: all of them are asked in one script.
const maxRules = 8

// Rule is a limit beside those of the user and of all together: of each tenant,
// route, table or whatever else a request belongs to. It is decided on together
// with the others, in the same round trip, and refused by one means charged to
// none.
type Rule struct {
	// Name is told as the [Scope] of what it refuses and is a part of its keys:
	// at most 32 bytes without colons, braces, blanks and control characters, and
	// neither "user", "global" nor "unavailable".
	Name string
	// Key returns what the request is charged to; empty: the rule does not
	// apply. Like an identity it may be any string. It is called on the caller's
	// goroutine, once for each request, and must not block.
	Key func(ctx context.Context) string
	// KeyOf is Key for what only a statement tells, such as its table. The rule
	// applies to statements alone. One of both must be set.
	KeyOf func(ctx context.Context, st Statement) string
	// Rate is the limit of each key. Zero: none, until [Limiter.SetRule].
	Rate Limit
}

// ByRoute is a [Rule.Key] that gives the name of the request or job, as the
// middleware or Begin of the plugin that contains this package named it.
func ByRoute(ctx context.Context) string {
	if s := scope.From(ctx); s != nil {
		return s.Name()
	}
	return ""
}

// ByTable is a [Rule.KeyOf] that gives the table of the statement.
func ByTable(_ context.Context, st Statement) string { return st.Table }

func validateRules(rules []Rule) error {
	var errs []error
	if len(rules) > maxRules {
		errs = append(errs, fmt.Errorf("limithook: Rules has %d: must be at most %d", len(rules), maxRules))
	}
	seen := map[string]bool{string(ScopeUser): true, string(ScopeGlobal): true, string(ScopeUnavailable): true}
	for i, r := range rules {
		field := fmt.Sprintf("limithook: Rules[%d]", i)
		if r.Name == "" || len(r.Name) > 32 || strings.ContainsFunc(r.Name, func(c rune) bool {
			return strings.ContainsRune("{}:", c) || unicode.IsSpace(c) || !unicode.IsPrint(c)
		}) {
			errs = append(errs, fmt.Errorf("%s.Name is %q: must be of 1 to 32 bytes without colons, braces, blanks and control characters", field, r.Name))
		}
		if seen[r.Name] {
			errs = append(errs, fmt.Errorf("%s.Name is %q: must be its own, and neither user, global nor unavailable", field, r.Name))
		}
		seen[r.Name] = true
		if (r.Key == nil) == (r.KeyOf == nil) {
			errs = append(errs, fmt.Errorf("%s.Key and KeyOf: one of both must be set", field))
		}
		if r.Rate.Shards != 0 {
			errs = append(errs, fmt.Errorf("%s.Rate.Shards is %d: must be 0: only Global has shards", field, r.Rate.Shards))
		}
		errs = append(errs, r.Rate.Validate(field+".Rate"))
	}
	return errors.Join(errs...)
}

package metrics

import (
	"strings"
	"unicode/utf8"
)

const (
	// other is the label of all that is beyond a bound.
	other = "other"
	// maxLabel bounds a label's length in bytes. Names in Postgres have 63.
	maxLabel = 128
)

// named holds something for each name, up to a bound, and one thing for all
// names beyond it.
type named[V any] struct {
	grown[string, V]
	max  int
	mk   func(label string) V
	rest V
}

func newNamed[V any](limit int, mk func(label string) V) *named[V] {
	return &named[V]{max: limit, mk: mk, rest: mk(other)}
}

// of returns what name has. It allocates for a new name only.
func (n *named[V]) of(name string) V {
	if v, ok := n.get(name); ok {
		return v
	}
	if len(n.load()) >= n.max {
		return n.rest
	}
	// The name may be a piece of a long SQL text: do not hold on to it.
	v, ok := n.add(strings.Clone(name), n.max, func() V { return n.mk(labelValue(name)) })
	if !ok {
		return n.rest
	}
	return v
}

// labelValue makes of any bytes what Prometheus accepts: valid UTF-8, of a
// reasonable length.
func labelValue(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) > maxLabel {
		end := maxLabel
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return strings.Clone(s)
}

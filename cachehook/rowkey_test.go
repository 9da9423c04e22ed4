package cachehook

import (
	"strings"
	"testing"

	"github.com/gorminfra/infra/internal/sqltext"
)

func TestCanonicalKeys(t *testing.T) {
	t.Parallel()
	type id int32
	forty := int64(42)
	for _, c := range []struct {
		kind keyKind
		arg  any
		want string // "": it cannot be told
	}{
		{keyInteger, 42, "42"}, {keyInteger, id(42), "42"}, {keyInteger, uint8(42), "42"}, {keyInteger, "42", "42"}, {keyInteger, &forty, "42"},
		{keyInteger, "-7", "-7"}, {keyInteger, " 42", ""}, {keyInteger, "042", ""}, {keyInteger, "+42", ""}, {keyInteger, 42.0, ""},
		{keyInteger, true, ""}, {keyInteger, nil, ""}, {keyInteger, (*int64)(nil), ""}, {keyInteger, uint64(1 << 63), ""}, {keyInteger, []byte("42"), ""},
		{keyText, "42", "'42"}, {keyText, 42, ""}, {keyText, "a\x00b", "#"}, {keyText, strings.Repeat("x", 65), "#"},
		{keyUUID, [16]byte{15: 10}, "0000000000000000000000000000000a"}, {keyUUID, "00000000-0000-0000-0000-00000000000A", "0000000000000000000000000000000a"},
		{keyUUID, "{00000000-0000-0000-0000-00000000000A}", ""}, {keyUUID, "x", ""},
	} {
		got, ok := c.kind.canonical(c.arg, 0)
		if !ok {
			got = ""
		}
		if got != c.want && !(c.want == "#" && strings.HasPrefix(got, "#")) {
			t.Errorf("%d %#v: %q, want %q", c.kind, c.arg, got, c.want)
		}
	}
	r := &relation{root: "t", key: []keyColumn{{"a", keyText}, {"b", keyText}}}
	where := []sqltext.Predicate{{Column: "a", Op: "=", Args: []int{0}}, {Column: "b", Op: "=", Args: []int{1}}}
	one, _ := r.rowsOf(where, []any{"a,2:'b", "c"}, 4)
	two, _ := r.rowsOf(where, []any{"a", "b,2:'c"}, 4)
	if one[0] == two[0] {
		t.Errorf("two keys are written %q", one)
	}
}

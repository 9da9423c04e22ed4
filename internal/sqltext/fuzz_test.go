package sqltext

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse holds any text against what must be true of every Statement.
func FuzzParse(f *testing.F) {
	for _, text := range seeds() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkInvariants(t, text) })
}

func TestInvariantsOfTheSeeds(t *testing.T) {
	t.Parallel()
	for _, text := range seeds() {
		checkInvariants(t, text)
	}
}

func checkInvariants(t *testing.T, text string) {
	st := Parse(text)
	if again := Parse(text); !reflect.DeepEqual(st, again) {
		t.Fatalf("%q is read in two ways:\n %+v\n %+v", text, st, again)
	}
	if !utf8.ValidString(st.Shape) || len(st.Shape) > 4*len(text)+32 {
		t.Fatalf("%q has the shape %q", text, st.Shape)
	}
	shape := Parse(st.Shape)
	if shape.Shape != st.Shape {
		t.Fatalf("%q has the shape %q, which has the shape %q", text, st.Shape, shape.Shape)
	}
	if st.Operation == Unknown {
		if describe(st) != "unknown maywrite" || st.Where != nil || st.WhereExact {
			t.Fatalf("%q is unknown, and yet %s", text, describe(st))
		}
		return
	}

	// A shape is the same statement, up to its values.
	if shape.Operation != st.Operation || shape.ReadOnly() != st.ReadOnly() || !slices.Equal(shape.Reads, st.Reads) || !slices.Equal(shape.Writes, st.Writes) || !slices.Equal(shape.Functions, st.Functions) {
		t.Fatalf("%q is %s, its shape %q is %s", text, describe(st), st.Shape, describe(shape))
	}
	// Comments, white space and closing semicolons change nothing.
	if dressed := Parse("\n-- x\r\n/* '/* \" */*/\t" + text + "\n;;"); describe(dressed) != describe(st) || dressed.Shape != st.Shape || !reflect.DeepEqual(dressed.Where, st.Where) || !reflect.DeepEqual(dressed.Upsert, st.Upsert) {
		t.Fatalf("%q is %s, with comments %s", text, describe(st), describe(dressed))
	}
	// Nothing that comes second goes unseen.
	for _, two := range []string{"SELECT 1;" + text, text + "\n;DELETE FROM t"} {
		if second := Parse(two); second.ReadOnly() || !second.Multiple && second.Operation != Unknown || st.MayWrite() && !second.MayWrite() {
			t.Fatalf("%q is %s, and %q is %s", text, describe(st), two, describe(second))
		}
	}
	if st.Operation == Select {
		if explained := Parse("EXPLAIN ANALYZE " + text); explained.ReadOnly() != st.ReadOnly() && explained.Operation != Unknown {
			t.Fatalf("%q is %s, executed by EXPLAIN %s", text, describe(st), describe(explained))
		}
	}
	if st.Cacheable() && !st.ReadOnly() || st.ReadOnly() && st.MayWrite() || len(st.Writes) > 0 && !st.MayWrite() {
		t.Fatalf("%q contradicts itself: %s", text, describe(st))
	}
	if st.ReadOnly() && st.Operation == Select {
		checkNoWrite(t, text, st)
	}
	for _, p := range st.Where {
		if p.Column == "" || p.Table == "" || len(p.Args) == 0 && !p.Literal || p.Array && len(p.Args) > 1 {
			t.Fatalf("%q has the condition %+v", text, p)
		}
	}
}

// checkNoWrite looks for what writes or locks with the plainest of means: by
// neighbouring tokens.
func checkNoWrite(t *testing.T, text string, st *Statement) {
	toks, _ := scan(text, nil)
	word := func(i int) string {
		if i < 0 || i >= len(toks) || toks[i].kind != kWord {
			return ""
		}
		return strings.ToUpper(text[toks[i].start:toks[i].end])
	}
	for i := range toks {
		before := word(i - 1)
		switch toks[i].kind {
		case kSemi:
			if next := toks[i+1].kind; next != kSemi && next != kEOF && i > 0 && toks[i-1].kind != kSemi {
				t.Fatalf("%q is %s, with two statements", text, describe(st))
			}
		case kLParen:
			w := word(i + 1)
			if (before == "AS" || before == "MATERIALIZED") && (w == "INSERT" && word(i+2) == "INTO" || w == "DELETE" && word(i+2) == "FROM" || w == "UPDATE" && word(i+3) == "SET" || w == "MERGE" && word(i+2) == "INTO") {
				t.Fatalf("%q is %s, with a CTE that writes", text, describe(st))
			}
			operator := i > 1 && toks[i-2].kind == kOp && toks[i-2].end-toks[i-2].start == 1 && strings.Contains("-+/<=>", text[toks[i-2].start:toks[i-2].end])
			if (word(i-2) == "SELECT" || operator) && (before == "NEXTVAL" || before == "PG_ADVISORY_LOCK" || before == "SET_CONFIG") {
				t.Fatalf("%q is %s, with %s", text, describe(st), before)
			}
		case kWord:
			if word(i) == "FOR" && before != "AS" && toks[max(i-1, 0)].kind != kCast && toks[max(i-1, 0)].kind != kDot {
				if w, next := word(i+1), word(i+2); toks[i+2-btoi(i+2 >= len(toks))].kind != kDot && (w == "UPDATE" || w == "SHARE" || w == "KEY" && next == "SHARE" || w == "NO" && next == "KEY") {
					t.Fatalf("%q is %s, with a lock", text, describe(st))
				}
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

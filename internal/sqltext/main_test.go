package sqltext

import (
	"strings"
	"testing"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// describe says all of st but its shape and predicates in one line: the
// operation, the tables read (<) and written (>), the flags, the unknown
// functions (!), and what follows from it: "ro" and "cache".
func describe(st *Statement) string {
	words := []string{st.Operation.String()}
	for _, t := range st.Reads {
		words = append(words, "<"+t.String())
	}
	for _, t := range st.Writes {
		words = append(words, ">"+t.String())
	}
	for _, f := range []struct {
		set  bool
		name string
	}{
		{st.Locking, "locking"}, {st.Volatile, "volatile"}, {st.Unstable, "unstable"}, {st.Multiple, "multiple"},
		{st.Session, "session"}, {st.Opaque, "opaque"}, {st.System, "system"}, {st.Limit, "limit"}, {st.Aggregate, "aggregate"},
	} {
		if f.set {
			words = append(words, f.name)
		}
	}
	for _, f := range st.UnknownFunctions {
		words = append(words, "!"+f)
	}
	if st.ReadOnly() {
		words = append(words, "ro")
	}
	if st.Cacheable() {
		words = append(words, "cache")
	}
	if st.MayWrite() {
		words = append(words, "maywrite")
	}
	return strings.Join(words, " ")
}

// described is one row of a table test: a text and what describe says of it.
type described struct{ text, want string }

func checkDescribed(t *testing.T, rows []described) {
	t.Helper()
	for _, r := range rows {
		if got := describe(Parse(r.text)); got != r.want {
			t.Errorf("%s\n got  %s\n want %s", abridged(r.text), got, r.want)
		}
	}
}

func abridged(text string) string {
	if len(text) > 300 {
		return text[:300] + "…"
	}
	return text
}

package nplusone

import (
	"database/sql"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

func newTracker(tb testing.TB, cfg Config) *tracker {
	tb.Helper()
	_, s, _ := scope.Begin(tb.Context(), tb.Name())
	return New(cfg).tracker(s)
}

// statement is one in the tracker's terms.
func statement(text string, at *site, args ...any) *event {
	return &event{text: sqltext.Analyze(text), sql: text, args: args, site: at, rows: 1, took: time.Millisecond, samples: at != nil}
}

func heap() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The heap is the process's, so this test runs beside no other.
func TestTenThousandStatementsStayWithinOneMegabyte(t *testing.T) {
	const n, limit = 10_000, 1 << 20
	columns := func(i int) string {
		return fmt.Sprintf("SELECT * FROM t WHERE c%d = $1 AND %s = $2", i, strings.Repeat("x", i%300+1))
	}
	long := strings.Repeat("y", 500)
	tests := []struct {
		name    string
		event   func(i int) *event
		dropped bool
	}{
		{"one shape", func(i int) *event { return statement("SELECT * FROM t WHERE id = $1", nil, i) }, false},
		{"all different", func(i int) *event {
			return statement(columns(i), &site{hash: uint64(i), pcs: make([]uintptr, keptFrames)}, i, long)
		}, true},
		{"many sites, with samples", func(i int) *event {
			return statement("SELECT * FROM t WHERE a = $1 AND b = $2", &site{hash: uint64(i % 300), pcs: make([]uintptr, keptFrames)}, fmt.Sprint(i, long), long)
		}, false},
	}
	for _, tt := range tests {
		// What the memo of texts holds is not the scope's.
		for i := range n {
			sqltext.Analyze(tt.event(i).sql)
		}
		tr := newTracker(t, Config{Development: true})
		before := heap()
		for i := range n {
			tr.note(tt.event(i))
		}
		after := heap()
		if used := int64(after) - int64(before); used > limit {
			t.Errorf("%s: %d bytes for %d statements, at most %d", tt.name, used, n, limit)
		} else {
			t.Logf("%s: %d KiB", tt.name, used/1024)
		}
		r := tr.report(2)
		if r.Statements != n || (r.Dropped > 0) != tt.dropped {
			t.Errorf("%s: %d statements, %d dropped", tt.name, r.Statements, r.Dropped)
		}
		if tt.dropped && uint64(r.Dropped) != tr.detector.Stats().Dropped {
			t.Errorf("%s: %d dropped, the detector counts %d", tt.name, r.Dropped, tr.detector.Stats().Dropped)
		}
		runtime.KeepAlive(tr)
	}
}

func TestHashSetAgreesWithAMapAndIsBounded(t *testing.T) {
	t.Parallel()
	var s hashSet
	known := map[uint64]bool{}
	for i := range uint64(2 * maxSeen) {
		h := mix(7, i%(maxSeen+500))
		fresh, room := s.add(h)
		full := len(known) >= maxSeen
		switch {
		case known[h]:
			if fresh || !room {
				t.Fatalf("%d: a known hash is fresh=%v room=%v", i, fresh, room)
			}
		case full:
			if fresh || room {
				t.Fatalf("%d: taken although the set is full", i)
			}
		default:
			if !fresh || !room {
				t.Fatalf("%d: a new hash is fresh=%v room=%v", i, fresh, room)
			}
			known[h] = true
		}
	}
	if len(s.table) > 2*maxSeen {
		t.Errorf("a table of %d places for %d", len(s.table), maxSeen)
	}
	if fresh, _ := (&hashSet{}).add(0); !fresh {
		t.Error("zero is no hash like others")
	}
}

func TestWritesAreKnownByTheirTable(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, Config{})
	read := sqltext.Analyze("SELECT * FROM a JOIN b ON b.id = a.id")
	write := func(text string) uint32 {
		before := tr.writes
		tr.note(statement(text, nil))
		return before
	}
	for _, tt := range []struct {
		text string
		want bool
	}{
		{"UPDATE a SET x = 1", true}, {"DELETE FROM b", true}, {"INSERT INTO c VALUES (1)", false}, {"UPDATE a SET x = 1", true},
		{"WITH x AS (DELETE FROM b RETURNING id) SELECT * FROM x", true}, {"DO $$ $$", true}, {"SELECT 1", false},
	} {
		if got := tr.writtenSince(read, write(tt.text)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.text, got, tt.want)
		}
	}
	for i := range 2 * maxWritten {
		write(fmt.Sprintf("DELETE FROM t%d", i))
	}
	if len(tr.wrote) != maxWritten {
		t.Errorf("%d tables remembered", len(tr.wrote))
	}
	if !tr.writtenSince(read, write("DELETE FROM yet_another")) {
		t.Error("a write that found no room is forgotten")
	}
}

type named string

type key [16]byte

func TestParametersAreComparedByWhatTheyHold(t *testing.T) {
	t.Parallel()
	one, other, two := 1, 1, 2
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	same := [][2]any{
		{1, int64(1)}, {int8(1), 1}, {uint(1), uint64(1)}, {uint8(1), uint16(1)}, {float32(0.5), 0.5}, {"a", named("a")}, {[]byte("a"), []byte("a")},
		{&one, &other}, {&one, 1}, {(*int)(nil), nil}, {true, true}, {at, at.In(time.FixedZone("x", 3600))}, {&at, at},
		{sql.NullString{String: "a", Valid: true}, sql.NullString{String: "a", Valid: true}}, {sql.NullTime{Time: at}, sql.NullTime{Time: at}},
		{key{1}, key{1}}, {[]int{1, 2}, []int{1, 2}}, {map[string]int{"a": 1, "b": 2}, map[string]int{"b": 2, "a": 1}}, {[]any{1, "a"}, []any{1, "a"}},
	}
	differ := [][2]any{
		{1, 2}, {1, "1"}, {"a", "b"}, {"a", []byte("a")}, {nil, 0}, {&one, &two}, {true, false}, {at, at.Add(1)}, {0.5, 0.25}, {uint(1), uint(2)},
		{sql.NullString{String: "a", Valid: true}, sql.NullString{String: "a"}}, {key{1}, key{2}}, {[]int{1, 2}, []int{2, 1}}, {[]int{1}, []int{1, 1}},
		{map[string]int{"a": 1}, map[string]int{"a": 2}}, {named("a"), named("b")}, {int8(1), int8(2)}, {complex(1, 1), nil},
	}
	for _, p := range same {
		if hashArg(3, p[0], false) != hashArg(3, p[1], false) {
			t.Errorf("%T %v and %T %v have different hashes", p[0], p[0], p[1], p[1])
		}
	}
	for _, p := range differ {
		if hashArg(3, p[0], false) == hashArg(3, p[1], false) {
			t.Errorf("%T %v and %T %v have one hash", p[0], p[0], p[1], p[1])
		}
	}
	if hashArg(3, &one, true) == hashArg(3, &other, true) {
		t.Error("a pointer that may not be followed was")
	}
}

func TestHashIgnoresCyclesBelowItsDepth(t *testing.T) {
	t.Parallel()
	type node struct{ Next *node }
	n := &node{}
	n.Next = n
	hashArg(1, n, false) // ends
}

func TestSiteIsMadeOfTheUsersInnermostFrames(t *testing.T) {
	t.Parallel()
	plumbing := func(pc uintptr) bool { return pc < 100 }
	at := func(pcs ...uintptr) *site { return siteOf(pcs, plumbing) }
	tests := []struct {
		name string
		a, b *site
		same bool
	}{
		{"other plumbing", at(1, 2, 101, 102), at(3, 101, 102), true},
		{"other innermost frame", at(1, 101, 102), at(1, 103, 102), false},
		{"other caller of one helper", at(1, 101, 102), at(1, 101, 103), false},
		{"depths of a recursion", at(1, 101, 102, 102, 103), at(1, 101, 102, 102, 102, 103), true},
		{"depths of a mutual recursion", at(101, 102, 103, 104), at(101, 102, 103, 102, 103, 104), true},
		{"callers far out", at(101, 102, 103, 104, 105), at(101, 102, 103, 104, 106), true},
		{"plumbing between", at(101, 50, 102), at(101, 51, 102), true},
	}
	for _, tt := range tests {
		if (tt.a.hash == tt.b.hash) != tt.same {
			t.Errorf("%s: same site %v, want %v", tt.name, !tt.same, tt.same)
		}
	}
	var deep []uintptr
	for i := range 30 {
		deep = append(deep, uintptr(200+i))
	}
	if s := at(deep...); len(s.pcs) != keptFrames || s.pcs[0] != 200 {
		t.Errorf("%d frames kept, the first %d", len(s.pcs), s.pcs[0])
	}
	if a, b := at(deep...), at(deep...); a != b {
		t.Error("a stack in use is not remembered")
	}
}

func TestSampleIsShortAndReadable(t *testing.T) {
	t.Parallel()
	n, s := 7, "it's"
	e := statement("SELECT 1", nil, 1, "it's", &s, nil, (*int)(nil), []byte("abc"), &n, 2.5, true)
	if got, want := sample(e).String(), "(1, 'it''s', 'it''s', NULL, NULL, 3 bytes, 7, … 2 more)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e = statement("SELECT 1", nil, strings.Repeat("ü", 100), sql.NullString{String: "x", Valid: true}, time.Unix(0, 0).UTC(), named("n"), valueOfPanic{})
	if got, want := sample(e).String(), "('"+strings.Repeat("ü", 24)+"…', 'x', 1970-01-01T00:00:00Z, 'n', nplusone.valueOfPanic)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e = statement("SELECT 1", nil, &n)
	e.opaque = true
	if got := sample(e).String(); got != "(*int)" {
		t.Errorf("a pointer that may not be followed: %s", got)
	}
}

func TestSampleLeavesTheLimitOut(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`SELECT * FROM "t" WHERE "a" = $1 LIMIT $2`:                                 "(7)",
		`SELECT * FROM "t" WHERE "a" = $1 ORDER BY "b" LIMIT $2 FOR UPDATE`:         "(7)",
		`SELECT * FROM t WHERE a = ? LIMIT ?`:                                       "(7)",
		`select * from t where a = $2 limit $1`:                                     "(8)",
		`SELECT * FROM t LIMIT ? OFFSET ?`:                                          "(8)", // a page differs by its offset
		`SELECT * FROM t WHERE a = ? AND b = ?`:                                     "(7, 8)",
		`SELECT * FROM t WHERE a = ? AND b IN (SELECT b FROM u LIMIT ?) LIMIT 10`:   "(7, 8)",
		`SELECT * FROM t WHERE a = (SELECT b FROM u LIMIT ?) AND b = ?`:             "(7, 8)",
		`SELECT * FROM t WHERE a = $1 AND b = $2 FETCH FIRST 1 ROWS ONLY`:           "(7, 8)",
		`SELECT * FROM t LIMIT ?, ?`:                                                "(7, 8)",
		`SELECT * FROM t WHERE a = $1 AND b = $2 AND c = ' LIMIT $1' LIMIT 1`:       "(7, 8)",
		`SELECT * FROM t WHERE a = $1 AND b = $2 LIMIT 1 -- LIMIT or what it's for`: "(7, 8)",
	} {
		e := statement(text, nil, 7, 8)
		if got := sample(e).String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := sample(statement(`SELECT * FROM t LIMIT $1`, nil, 7)).String(); got != "(7)" {
		t.Errorf("of nothing but a limit: %s", got)
	}
}

type valueOfPanic struct{}

func (valueOfPanic) Value() (any, error) { panic("no value") }

func TestEnclosingFunctionOfAClosure(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a/b.list": "a/b.list", "a/b.list.func1": "a/b.list", "a/b.(*T).list.func2.1": "a/b.(*T).list", "a/b.list-range1": "a/b.list",
		"a/b.list.func1.2.gowrap1": "a/b.list", "a/b.find[...]": "a/b.find[...]",
	} {
		if got := enclosing(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestLogForgetsTheOldest(t *testing.T) {
	t.Parallel()
	var l logged
	now := time.Unix(0, 0)
	f := func(i int) *Finding { return &Finding{Route: fmt.Sprint(i)} }
	if !l.due(f(0), now, time.Minute) || l.due(f(0), now.Add(59*time.Second), time.Minute) || !l.due(f(0), now.Add(time.Minute), time.Minute) {
		t.Error("one finding is not logged once a minute")
	}
	if !l.due(f(0), now, -1) || !l.due(f(0), now, -1) {
		t.Error("a negative time does not log each")
	}
	for i := range 2 * maxLogged {
		l.due(f(i), now, time.Minute)
	}
	if n := l.last.Len(); n != maxLogged {
		t.Errorf("%d remembered", n)
	}
}

func TestStateIsOfAFewSizes(t *testing.T) {
	t.Parallel()
	if n := reflect.TypeFor[group]().Size(); n > 200 {
		t.Errorf("a group has %d bytes", n)
	}
}

func TestShapesAreToldApartBeyondTheFew(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, Config{})
	const shapes = 3 * fewGroups
	for round := range 3 {
		for i := range shapes {
			tr.note(statement(fmt.Sprintf("SELECT * FROM t%d WHERE id = $1", i), nil, round))
		}
	}
	if len(tr.groups) != shapes || tr.index == nil {
		t.Fatalf("%d groups of %d shapes, index %v", len(tr.groups), shapes, tr.index)
	}
	for i := range tr.groups {
		if g := &tr.groups[i]; g.count != 3 || g.distinct != 3 || tr.known(g.key) != g {
			t.Errorf("shape %d: %d statements, %d distinct", i, g.count, g.distinct)
		}
	}
}

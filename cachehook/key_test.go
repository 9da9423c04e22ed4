package cachehook

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

type status int64

func TestC11ArgumentsThatDifferHaveDifferentKeys(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	var nilString *string
	empty, one := "", "1"
	lists := [][]any{
		{}, {nil}, {""}, {[]byte(nil)}, {[]byte{}}, {nilString}, {&empty}, {&one},
		{"a b", "c"}, {"a", "b c"}, {"a b c"}, {"a", "b", "c"},
		{int64(1)}, {"1"}, {1.0}, {float32(1)}, {true}, {int32(1)}, {uint64(1)}, {status(1)}, {[]byte("1")},
		{at}, {at.In(berlin)}, {at.Add(1)}, {sql.NullTime{Time: at, Valid: true}}, {sql.NullTime{}},
		{[]string{"a", "b"}}, {[]string{"ab"}}, {[]string{}}, {[]string(nil)}, {[]any{"a", "b"}}, {[2]string{"a", "b"}},
		{map[string]any{"a": 1, "b": 2}}, {map[string]any{"a": 2, "b": 1}}, {map[string]any{"a": "1", "b": 2}},
		{pgx.QueryExecModeSimpleProtocol}, {pgx.QueryExecModeExec}, {pgx.QueryExecModeSimpleProtocol, int64(1)},
		{sql.Named("a", 1)}, {sql.Named("b", 1)}, {sql.NullString{}}, {sql.NullString{Valid: true}}, {sql.NullInt64{Valid: true}},
	}
	seen := make(map[string]string)
	for _, args := range lists {
		key, ok := appendArgs(nil, args)
		if !ok {
			t.Fatalf("%#v has no key", args)
		}
		name := fmt.Sprintf("%#v", args)
		if other, twice := seen[string(key)]; twice {
			t.Errorf("%s and %s have one key", other, name)
		}
		seen[string(key)] = name
	}
}

func TestC11EqualArgumentsHaveOneKey(t *testing.T) {
	t.Parallel()
	key := func(args ...any) string {
		b, ok := appendArgs(nil, args)
		equal(t, "has a key", ok, true)
		return string(b)
	}
	m := map[string]any{}
	for i := range 50 {
		m[fmt.Sprint(i)] = i
	}
	first := key(m)
	for range 20 {
		equal(t, "the order of a map", key(m), first)
	}
	equal(t, "int and int64", key(1), key(int64(1)))
	a, b := "x", "x"
	equal(t, "pointers", key(&a), key(&b))
}

func TestC11UnreadableArgumentHasNoKey(t *testing.T) {
	t.Parallel()
	type loop struct{ Next *loop }
	for _, arg := range []any{struct{ A int }{1}, make(chan int), func() {}, &loop{}} {
		if _, ok := appendArgs(nil, []any{arg}); ok {
			t.Errorf("%T has a key", arg)
		}
	}
}

// The server reads such a string as another date each time, and does not say so.
func TestC10MovingArgumentHasNoKey(t *testing.T) {
	t.Parallel()
	type name string
	now := "now"
	for _, arg := range []any{"now", " Now ", "today", "TOMORROW 12:00", "yesterday", "[today,)", "{now}", name("now"), &now, []string{"2020-01-01", "now"}, sql.NullString{String: "now", Valid: true}} {
		if _, ok := appendArgs(nil, []any{1, arg}); ok {
			t.Errorf("%v has a key", arg)
		}
	}
	for _, arg := range []any{"", "no", "known", "2020-01-01", "yesterdays", "Norway", strings.Repeat("now ", 40)} {
		if _, ok := appendArgs(nil, []any{1, arg}); !ok {
			t.Errorf("%v has no key", arg)
		}
	}
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz)`)
	db := open(t, dsn, Config{Tables: map[string]Rule{"events": {}}})
	const past = `SELECT count(*)::text FROM events WHERE at < $1`
	must(t, db.Exec(`INSERT INTO events VALUES (1, clock_timestamp() + interval '1 second')`).Error)
	eventually(t, "the event has come", 30*time.Second, func() bool { return db.text(t, past, "now") == "1" })
	equal(t, "hits", db.cache.Stats().L1Hits, 0)
}

func TestC11QueriesThatDifferShareNothing(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	queries := func(f func()) int64 {
		before := db.seen.queries.Load()
		f()
		return db.seen.queries.Load() - before
	}
	var p product
	var m map[string]any
	var n int64
	for i, f := range []func(){
		func() { must(t, db.First(&p, 1).Error); p = product{} },
		func() { must(t, db.First(&p, 2).Error); p = product{} },
		func() { must(t, db.Select("id").First(&p, 1).Error); p = product{} },
		func() { m = map[string]any{}; must(t, db.Model(&product{}).Where("id = ?", 1).Take(&m).Error) },
		func() { must(t, db.Clauses(TTL(time.Second)).First(&p, 1).Error); p = product{} },
		func() { must(t, db.Clauses(Tags("a")).First(&p, 1).Error); p = product{} },
		func() { must(t, db.Clauses(Tags("a", "b")).First(&p, 1).Error); p = product{} },
		func() { must(t, db.Model(&product{}).Where("name = ?", "1").Count(&n).Error) },
		func() { must(t, db.Model(&product{}).Where("name = '1'").Count(&n).Error) },
	} {
		equal(t, fmt.Sprintf("%d: first", i), queries(f), 1)
		equal(t, fmt.Sprintf("%d: second", i), queries(f), 0)
	}
}

package slowlog

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

type failing struct{}

func (failing) Value() (driver.Value, error) { return nil, errors.New("no value") }

type pointerValuer struct{ s string }

func (p *pointerValuer) Value() (driver.Value, error) { return p.s, nil }

type named string

func TestCopiedParametersAreApartFromTheCallers(t *testing.T) {
	t.Parallel()
	b, ints, n := []byte("abc"), []int64{1, 2}, 5
	ptrs := []*int{&n}
	ip := net.IP{1, 2, 3, 4}
	got, ok := copyParams([]any{b, ints, &n, ptrs, ip})
	if !ok {
		t.Fatal("not copied")
	}
	b[0], ints[0], n, ip[0] = 'x', 99, 99, 99
	want := []any{[]byte("abc"), []int64{1, 2}, 5, nil, net.IP{1, 2, 3, 4}}
	for i := range got {
		switch i {
		case 2:
			if *got[i].(*int) != 5 {
				t.Errorf("pointer: %v", *got[i].(*int))
			}
		case 3:
			if *got[i].([]*int)[0] != 5 {
				t.Errorf("slice of pointers: %v", *got[i].([]*int)[0])
			}
		default:
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("%d: %v, want %v", i, got[i], want[i])
			}
		}
	}
}

func TestCopyParams(t *testing.T) {
	t.Parallel()
	now := time.Now()
	cases := []struct {
		name string
		in   []any
		want []any // nil: refused
	}{
		{"scalars", []any{1, "a", true, 1.5, nil, now, uint8(3)}, []any{1, "a", true, 1.5, nil, now, uint8(3)}},
		{"named types", []any{named("x"), time.Second}, []any{named("x"), time.Second}},
		{"valuer", []any{sql.NullString{String: "s", Valid: true}, sql.NullInt64{}}, []any{"s", nil}},
		{"pointer valuer", []any{&pointerValuer{"p"}, (*pointerValuer)(nil)}, []any{"p", nil}},
		{"named argument", []any{sql.Named("n", 3)}, []any{sql.Named("n", 3)}},
		{"array", []any{[2]string{"a", "b"}}, []any{[2]string{"a", "b"}}},
		{"nested slices", []any{[][]string{{"a"}, nil}}, []any{[][]string{{"a"}, nil}}},
		{"times", []any{[]time.Time{now}}, []any{[]time.Time{now}}},
		{"driver options", []any{pgx.QueryExecModeSimpleProtocol, pgx.QueryResultFormats{1}, 7}, []any{7}},
		{"none", nil, []any{}},
		{"rewriter", []any{pgx.NamedArgs{"a": 1}}, nil},
		{"failing valuer", []any{failing{}}, nil},
		{"map", []any{map[string]int{"a": 1}}, nil},
		{"struct", []any{struct{ A int }{1}}, nil},
		{"slice of structs", []any{[]struct{ A int }{{1}}}, nil},
		{"channel", []any{make(chan int)}, nil},
		{"too long", []any{strings.Repeat("x", maxParams)}, nil},
		{"too many", []any{make([]int64, maxParams)}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, ok := copyParams(c.in)
			if ok != (c.want != nil) {
				t.Fatalf("ok = %v, got %v", ok, got)
			}
			if ok && !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

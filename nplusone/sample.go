package nplusone

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// params are the parameters of one statement as text, for a report; empty where
// one is not worth showing.
type params []string

// The bounds of a sample.
const (
	maxSampleArgs  = 8
	maxSampleBytes = 48 // of one parameter
)

// sample renders the parameters of e.
func sample(e *event) params {
	p := make(params, 0, min(len(e.args), maxSampleArgs))
	hidden := limitArg(e)
	for i, v := range e.args {
		if i == maxSampleArgs-1 && len(e.args) > maxSampleArgs {
			return append(p, fmt.Sprintf("… %d more", len(e.args)-i))
		}
		if i == hidden {
			p = append(p, "")
			continue
		}
		p = append(p, render(v, e.opaque))
	}
	return p
}

// limitArg is the index of the parameter that is the statement's LIMIT, as GORM
// writes it for First and Take, and -1 where the end of the text does not tell:
// in every sample of a loop it is the same. An OFFSET tells the samples apart.
func limitArg(e *event) int {
	if !e.text.Limit || len(e.args) < 2 {
		return -1
	}
	const word = " LIMIT "
	i := max(strings.LastIndex(e.sql, word), strings.LastIndex(e.sql, " limit "))
	if i < 0 || strings.ContainsAny(e.sql[i:], "'\"`),") {
		return -1 // in a subquery, or not certainly
	}
	mark, rest, _ := strings.Cut(e.sql[i+len(word):], " ")
	switch number, numbered := strings.CutPrefix(mark, "$"); {
	case numbered:
		if n, err := strconv.Atoi(number); err == nil && n >= 1 && n <= len(e.args) {
			return n - 1
		}
	case mark == "?":
		return len(e.args) - 1 - strings.Count(rest, "?")
	}
	return -1
}

func (p params) size() (n int) {
	for _, s := range p {
		n += len(s) + 16
	}
	return n
}

func (p params) String() string {
	shown := slices.DeleteFunc(slices.Clone(p), func(s string) bool { return s == "" })
	return "(" + strings.Join(shown, ", ") + ")"
}

// is reports whether parameter n is the string s, true where the sample does not
// reach.
func (p params) is(n int, s string) bool {
	if n >= len(p) || strings.HasPrefix(p[n], "…") {
		return true
	}
	return p[n] == quote(s)
}

func render(v any, opaque bool) string {
	switch x := v.(type) {
	case nil:
		return "NULL"
	case string:
		return quote(x)
	case []byte:
		return fmt.Sprintf("%d bytes", len(x))
	case time.Time:
		return x.Format(time.RFC3339Nano)
	}
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Pointer:
		if rv.IsNil() {
			return "NULL"
		}
		if !opaque {
			return render(rv.Elem().Interface(), opaque)
		}
		return rv.Type().String()
	case reflect.String:
		return quote(rv.String())
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Float32, reflect.Float64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprint(rv.Interface())
	}
	if !opaque {
		if s, ok := driverValue(v); ok {
			return s
		}
	}
	return rv.Type().String()
}

// driverValue asks a driver.Valuer, as the driver did a moment ago.
func driverValue(v any) (s string, ok bool) {
	valuer, ok := v.(driver.Valuer)
	if !ok {
		return "", false
	}
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	value, err := valuer.Value()
	if _, again := value.(driver.Valuer); err != nil || again {
		return "", false
	}
	return render(value, false), true
}

func quote(s string) string {
	if len(s) > maxSampleBytes {
		cut := maxSampleBytes
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return "'" + strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "'", "''") + "'"
}

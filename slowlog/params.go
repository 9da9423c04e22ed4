package slowlog

import (
	"database/sql"
	"database/sql/driver"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxParams bounds the parameters that a job keeps, in bytes.
const maxParams = 64 << 10

// copyParams copies parameters for use after the statement's caller may have
// changed them, without the driver's options in front. It reports false when one
// cannot be copied, or when they are too large to keep.
func copyParams(args []any) ([]any, bool) {
options:
	for len(args) > 0 {
		switch args[0].(type) {
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			args = args[1:]
		case pgx.QueryRewriter:
			return nil, false // it makes other SQL
		default:
			break options
		}
	}
	c := copier{left: maxParams}
	out := make([]any, len(args))
	for i, a := range args {
		v, ok := c.copy(a)
		if !ok {
			return nil, false
		}
		out[i] = v
	}
	return out, true
}

type copier struct{ left int }

func (c *copier) take(n int) bool {
	c.left -= n
	return c.left >= 0
}

func (c *copier) copy(v any) (any, bool) {
	switch v := v.(type) {
	case nil:
		return nil, c.take(16)
	case string:
		return v, c.take(16 + len(v))
	case []byte:
		return slices.Clone(v), c.take(24 + len(v))
	case time.Time, netip.Addr, netip.Prefix:
		return v, c.take(32)
	case sql.NamedArg:
		inner, ok := c.copy(v.Value)
		return sql.Named(v.Name, inner), ok
	case driver.Valuer:
		rv := reflect.ValueOf(v)
		if rv.Kind() == reflect.Pointer && rv.IsNil() {
			return nil, c.take(16)
		}
		value, err := v.Value()
		if err != nil {
			return nil, false
		}
		if _, again := value.(driver.Valuer); again {
			return nil, false
		}
		return c.copy(value)
	}
	rv, ok := c.reflected(reflect.ValueOf(v))
	if !ok {
		return nil, false
	}
	return rv.Interface(), true
}

// reflected copies what is made of scalars: named types, pointers, slices and
// arrays. Structs and maps are not: a driver makes what it likes of them.
func (c *copier) reflected(v reflect.Value) (reflect.Value, bool) {
	switch v.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8,
		reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return v, c.take(int(v.Type().Size()))
	case reflect.String:
		return v, c.take(16 + v.Len())
	case reflect.Pointer:
		if v.IsNil() {
			return v, c.take(8)
		}
		elem, ok := c.element(v.Elem())
		if !ok {
			return v, false
		}
		p := reflect.New(v.Type().Elem())
		p.Elem().Set(elem)
		return p.Convert(v.Type()), true
	case reflect.Slice:
		if v.IsNil() {
			return v, c.take(24)
		}
		if !c.take(v.Len()) { // before room is made for it
			return v, false
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		return out, c.elements(out, v)
	case reflect.Array:
		out := reflect.New(v.Type()).Elem()
		return out, c.elements(out, v)
	}
	return v, false
}

func (c *copier) elements(out, in reflect.Value) bool {
	for i := range in.Len() {
		elem, ok := c.element(in.Index(i))
		if !ok {
			return false
		}
		out.Index(i).Set(elem)
	}
	return true
}

func (c *copier) element(v reflect.Value) (reflect.Value, bool) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		return v, c.take(32)
	}
	return c.reflected(v)
}

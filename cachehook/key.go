package cachehook

import (
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/base64"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

// A key is everything that decides an answer, as bytes: each part led by its
// kind and length, so that no two lists of parts have the same bytes. L1
// compares them whole; L2 uses their SHA-256, which nobody can make collide.

// keyBuffers are reused: a look-up that hits allocates no key.
var keyBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// l2Name is the key's name in L2.
func l2Name(key []byte) string {
	sum := sha256.Sum256(key)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// The kinds of a part of a key, besides those of a payload's values.
const (
	partUint byte = 0x20 + iota
	partPointer
	partList
	partMap
	partNamed
	partSQLNamed
)

// appendArgs adds a statement's arguments, options of the driver among them. It
// reports false when an argument's value cannot be told from its look: that of "now"
// is another one each time.
func appendArgs(b []byte, args []any) (_ []byte, ok bool) {
	b = binary.AppendUvarint(b, uint64(len(args)))
	for _, arg := range args {
		if b, ok = appendArg(b, arg, 0); !ok {
			return b, false
		}
	}
	return b, true
}

func appendArg(b []byte, arg any, depth int) ([]byte, bool) {
	switch v := arg.(type) {
	case []byte:
		if v == nil { // NULL, which an empty one is not
			return append(b, tagNil, tagBytes), true
		}
		return appendValue(b, v), true
	case string:
		return appendValue(b, v), !moving(v)
	case nil, int64, float64, bool:
		return appendValue(b, v), true
	case int: // every driver takes it for an int64; narrower ones may be other types in SQL
		return appendValue(b, int64(v)), true
	case time.Time:
		// The same instant in two zones can be two values for the database.
		_, offset := v.Zone()
		b = binary.AppendVarint(appendTime(append(b, tagTime), v), int64(offset))
		return b, true
	case sql.NamedArg:
		return appendArg(appendString(append(b, partSQLNamed), v.Name), v.Value, depth+1)
	case driver.Valuer:
		b = appendString(append(b, partNamed), reflect.TypeOf(arg).String())
		if rv := reflect.ValueOf(arg); rv.Kind() == reflect.Pointer && rv.IsNil() {
			return append(b, tagNil), true // as database/sql does for a method of the value
		}
		value, err := v.Value()
		if _, again := value.(driver.Valuer); err != nil || again || depth > maxArgDepth {
			return b, false
		}
		return appendArg(b, value, depth+1)
	}
	return appendReflect(b, reflect.ValueOf(arg), depth)
}

const maxArgDepth = 8

// moving reports whether a server may read a string as another date each time: now,
// today, tomorrow, yesterday. Few strings have to be looked at closely.
func moving(s string) bool {
	for _, c := range [...]byte{'w', 'y', 'W', 'Y'} {
		if strings.IndexByte(s, c) >= 0 {
			return sqltext.MovingTime(s)
		}
	}
	return false
}

// appendReflect adds what is none of a driver's own kinds, under the name of its
// type: a driver may treat a named type in its own way.
func appendReflect(b []byte, v reflect.Value, depth int) ([]byte, bool) {
	if depth > maxArgDepth {
		return b, false
	}
	b = appendString(append(b, partNamed), v.Type().String())
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(append(b, tagInt), v.Int()), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(append(b, partUint), v.Uint()), true
	case reflect.Float32, reflect.Float64:
		return binary.LittleEndian.AppendUint64(append(b, tagFloat), math.Float64bits(v.Float())), true
	case reflect.Bool:
		return append(b, tagFalse+flags(v.Bool())), true
	case reflect.String:
		return appendString(append(b, tagString), v.String()), !moving(v.String())
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return append(b, partPointer, tagNil), true
		}
		return appendElem(append(b, partPointer, tagTrue), v.Elem(), depth)
	case reflect.Slice, reflect.Array:
		return appendList(b, v, depth)
	case reflect.Map:
		return appendMap(b, v, depth)
	}
	return b, false // structs, functions, channels: only the driver knows
}

func appendElem(b []byte, v reflect.Value, depth int) ([]byte, bool) {
	if !v.CanInterface() {
		return b, false
	}
	return appendArg(b, v.Interface(), depth+1)
}

func appendList(b []byte, v reflect.Value, depth int) (_ []byte, ok bool) {
	if v.Kind() == reflect.Slice && v.IsNil() {
		return append(b, tagNil), true
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		return appendValue(b, v.Bytes()), true
	}
	b = binary.AppendUvarint(append(b, partList), uint64(v.Len()))
	for i := range v.Len() {
		if b, ok = appendElem(b, v.Index(i), depth); !ok {
			return b, false
		}
	}
	return b, true
}

// appendMap adds a map in the order of its keys' bytes.
func appendMap(b []byte, v reflect.Value, depth int) (_ []byte, ok bool) {
	items := make([]string, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		item, ok := appendElem(nil, it.Key(), depth)
		if !ok {
			return b, false
		}
		if item, ok = appendElem(item, it.Value(), depth); !ok {
			return b, false
		}
		items = append(items, string(item))
	}
	slices.Sort(items)
	b = binary.AppendUvarint(append(b, partMap, flags(v.IsNil())), uint64(len(items)))
	for _, item := range items {
		b = appendString(b, item)
	}
	return b, true
}

package cachehook

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/base64"
	"encoding/hex"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gorminfra/infra/internal/sqltext"
)

// keyColumn is a column of a primary key.
type keyColumn struct {
	name string
	kind keyKind
}

// keyKind says which values of a column are equal. Columns of other types have no
// kind, and their tables no tags of rows: their values may be equal although they
// look different.
type keyKind uint8

const (
	keyInteger keyKind = iota + 1
	keyText            // under a collation that tells different bytes apart
	keyUUID
)

// The most rows that a statement, or a transaction in one table, is known by.
const (
	maxRowsRead    = 16
	maxRowsWritten = 64
)

// keyed reports whether rows of the relation have tags. With children or
// partitions, of which one may hold what another one does not, they have none.
func (r *relation) keyed() bool { return len(r.key) > 0 && !r.family && !r.view }

// rowsOf returns the primary keys that a condition confines a statement on the
// relation to; ok is false when it does not, or not to so few, or when a value
// cannot be told.
func (r *relation) rowsOf(where []sqltext.Predicate, args []any, most int) (keys []string, ok bool) {
	if !r.keyed() || len(args) > 0 && ofDriver(args[0]) {
		return nil, false
	}
	keys = []string{""}
	for i, column := range r.key {
		p := r.predicateOn(where, column.name)
		if p == nil || len(keys)*len(p.Args) > most {
			return nil, false
		}
		var longer []string
		for _, n := range p.Args {
			if n >= len(args) {
				return nil, false
			}
			for _, k := range keys {
				if k, ok = r.extend(k, i, args[n]); !ok {
					return nil, false
				}
				longer = append(longer, k)
			}
		}
		keys = longer
	}
	slices.Sort(keys)
	return slices.Compact(keys), true
}

// rowOf is rowsOf for one row of a key of one column. It is not one when there may be
// several, or its key cannot be told.
func (r *relation) rowOf(where []sqltext.Predicate, args []any) (key string, one bool) {
	if len(r.key) != 1 || !r.keyed() || len(args) > 0 && ofDriver(args[0]) {
		return "", false
	}
	p := r.predicateOn(where, r.key[0].name)
	if p == nil || len(p.Args) != 1 || p.Args[0] >= len(args) {
		return "", false
	}
	return r.extend("", 0, args[p.Args[0]])
}

// extend adds the value of the key's i-th column to those before it.
func (r *relation) extend(key string, i int, arg any) (string, bool) {
	value, ok := r.key[i].kind.canonical(arg, 0)
	if len(r.key) == 1 || !ok {
		return value, ok
	}
	if i > 0 {
		key += ","
	}
	return key + strconv.Itoa(len(value)) + ":" + value, true
}

// confines reports whether a condition compares the whole key with few enough
// parameters.
func (r *relation) confines(where []sqltext.Predicate) bool {
	n := 1
	for _, column := range r.key {
		p := r.predicateOn(where, column.name)
		if p == nil || n*len(p.Args) > maxRowsRead {
			return false
		}
		n *= len(p.Args)
	}
	return r.keyed()
}

// same reports whether two names mean the same column.
func (r *relation) same(a, b string) bool { return a == b || r.folded && strings.EqualFold(a, b) }

// predicateOn returns a condition that compares the column with parameters alone, as
// they are.
func (r *relation) predicateOn(where []sqltext.Predicate, column string) *sqltext.Predicate {
	for i := range where {
		p := &where[i]
		if r.same(p.Column, column) && len(p.Args) > 0 && !p.Literal && !p.Array && !p.Cast {
			return p
		}
	}
	return nil
}

// ofDriver recognises an option of the driver, behind which parameters are counted
// in another way.
func ofDriver(arg any) bool {
	return arg != nil && strings.Contains(reflect.TypeOf(arg).PkgPath(), "jackc/pgx")
}

var decimal = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)

// canonical writes a value so that all that are equal in the column are written
// alike. It reports false for what it cannot tell.
func (k keyKind) canonical(arg any, depth int) (string, bool) {
	if arg == nil || depth > maxArgDepth {
		return "", false
	}
	v := reflect.ValueOf(arg)
	if valuer, ok := arg.(driver.Valuer); ok {
		if v.Kind() == reflect.Pointer && v.IsNil() {
			return "", false
		}
		value, err := valuer.Value()
		if err != nil {
			return "", false
		}
		return k.canonical(value, depth+1)
	}
	if v.NumMethod() > 0 {
		return "", false // the driver may ask one of them, as pgtype.Int64Valuer's, what to send
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "", false
		}
		return k.canonical(v.Elem().Interface(), depth+1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), k == keyInteger
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10), k == keyInteger && v.Uint() <= math.MaxInt64
	case reflect.String:
		return k.canonicalText(v.String())
	case reflect.Array:
		if k == keyUUID && v.Len() == 16 && v.Type().Elem().Kind() == reflect.Uint8 {
			var b [16]byte
			reflect.Copy(reflect.ValueOf(&b).Elem(), v)
			return hex.EncodeToString(b[:]), true
		}
	}
	return "", false
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$`)

func (k keyKind) canonicalText(s string) (string, bool) {
	switch k {
	case keyInteger:
		return s, decimal.MatchString(s)
	case keyUUID:
		return strings.ToLower(strings.ReplaceAll(s, "-", "")), uuidForm.MatchString(s)
	case keyText:
		if strings.HasSuffix(s, " ") {
			return "", false // types of a length may drop it
		}
		if len(s) <= 64 && !strings.ContainsAny(s, tagSeparator+rowMark) {
			return "'" + s, true
		}
		sum := sha256.Sum256([]byte(s))
		return "#" + base64.RawURLEncoding.EncodeToString(sum[:]), true
	}
	return "", false
}

var moreThanOne = regexp.MustCompile(`(?i)\b(select|with|table|union|intersect|except)\b`)

// lookup returns the relation whose rows a text asks for by primary key, each at
// most once; nil when it asks for anything else.
func (c *catalog) lookup(text *sqltext.Statement) *relation {
	if c.trusting || len(text.Reads) != 1 || text.Aggregate || len(text.Functions) > 0 || len(moreThanOne.FindAllString(text.Shape, 2)) != 1 {
		return nil
	}
	if r := c.read(text.Reads[0]); r != nil && r.confines(text.Where) {
		return r
	}
	return nil
}

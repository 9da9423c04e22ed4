package cachehook

import (
	"database/sql"
	"reflect"
	"time"
	"unsafe"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// This file reads rows into models without database/sql and GORM, where that is
// a matter of a few obvious conversions. Each is one of those that database/sql
// makes for such a pair of value and field; with any other pair, with a number
// that does not fit, GORM does it all.

// valueKind is a group of field types that are read alike.
type valueKind uint8

const (
	takesNothing valueKind = iota // GORM's affair
	takesInt
	takesUint
	takesFloat
	takesBool
	takesString
	takesBytes      // also from a string
	takesNamedBytes // from bytes alone
	takesTime
	takesNullBool
	takesNullFloat
	takesNullInt64
	takesNullString
	takesNullTime // gorm.DeletedAt too, which is one
)

var valueKinds = map[reflect.Type]valueKind{
	reflect.TypeFor[time.Time]():       takesTime,
	reflect.TypeFor[gorm.DeletedAt]():  takesNullTime,
	reflect.TypeFor[sql.NullTime]():    takesNullTime,
	reflect.TypeFor[sql.NullBool]():    takesNullBool,
	reflect.TypeFor[sql.NullFloat64](): takesNullFloat,
	reflect.TypeFor[sql.NullInt64]():   takesNullInt64,
	reflect.TypeFor[sql.NullString]():  takesNullString,
}

// valueKindOf is for types that kindOf knows.
func valueKindOf(t reflect.Type) valueKind {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if k, ok := valueKinds[t]; ok {
		return k
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return takesInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return takesUint
	case reflect.Float32, reflect.Float64:
		return takesFloat
	case reflect.Bool:
		return takesBool
	case reflect.String:
		return takesString
	case reflect.Slice:
		switch bytes := reflect.TypeFor[[]byte](); {
		case t == bytes:
			return takesBytes
		case bytes.AssignableTo(t):
			return takesNamedBytes
		}
	}
	return takesNothing
}

// readSnapshot makes the snapshot that takeSnapshot would take after GORM has
// scanned set, or unfit where it takes GORM to know.
func readSnapshot(stmt *gorm.Statement, set *rowset) *snapshot {
	to, ok := shapeOf(stmt)
	if !ok {
		return unfit
	}
	return to.read(layoutOf(to.schema, set.cols.list), set.values, int(set.rows))
}

// read makes a snapshot of rows whose values are written in values. It does not
// keep those.
func (to shape) read(l *layout, values string, rows int) *snapshot {
	s := to.readInto(l, values, rows)
	if s == unfit {
		return unfit
	}
	return s.completed()
}

// readInto is read for models that keep what lies in values.
func (to shape) readInto(l *layout, values string, rows int) *snapshot {
	s := to.empty(l, values, rows)
	if s == unfit {
		return unfit
	}
	d := decoder{s: values}
	size := s.layout.schema.ModelType.Size()
	for i := range uintptr(s.rows) {
		if !s.layout.read(&d, unsafe.Add(s.first, i*size)) {
			return unfit
		}
	}
	return s
}

// gift is a list of models that nobody else has: its destination gets them, and no
// copies.
type gift struct{ *snapshot }

var _ hook.Filler = gift{}

// readGift is readSnapshot for a result that is not kept. It reports false for another
// destination than a list of models.
func readGift(stmt *gorm.Statement, set *rowset) (_ gift, ok bool) {
	to, ok := shapeOf(stmt)
	if !ok || !to.list || to.pointers {
		return gift{}, false
	}
	s := to.readInto(layoutOf(to.schema, set.cols.list), set.values, int(set.rows))
	return gift{s}, s != unfit
}

// Fill implements hook.Filler.
func (g gift) Fill(stmt *gorm.Statement) int64 {
	if dest := stmt.ReflectValue; dest.IsNil() || dest.Cap() < int(g.rows) {
		dest.Set(g.models)
	} else { // into the caller's own memory
		dest.SetLen(int(g.rows))
		reflect.Copy(dest, g.models)
	}
	return int64(g.rows)
}

// read reads a row into a model that is empty. NULL leaves a field so; of a
// single model the snapshot knows which they are.
func (l *layout) read(d *decoder, model unsafe.Pointer) bool {
	next := 0 // fields are in the order of their columns
	for column := range l.columns {
		if next == len(l.fields) || l.fields[next].column != column {
			d.skipValue()
			continue
		}
		f := &l.fields[next]
		next++
		if d.s != "" && d.s[0] == tagNil {
			d.byte()
			continue
		}
		to := unsafe.Add(model, f.offset)
		if f.how == copyPointer {
			value := reflect.New(f.typ.Elem()).UnsafePointer()
			*(*unsafe.Pointer)(to), to = value, value
		}
		if !d.into(to, f.takes, f.size) {
			return false
		}
	}
	return !d.failed
}

// into reads a value that is not NULL to where one of that kind and size is.
func (d *decoder) into(to unsafe.Pointer, kind valueKind, size uintptr) bool {
	switch d.byte() {
	case tagInt:
		return intInto(to, kind, size, d.varint())
	case tagFloat:
		return floatInto(to, kind, size, d.float())
	case tagFalse:
		return boolInto(to, kind, false)
	case tagTrue:
		return boolInto(to, kind, true)
	case tagString:
		return stringInto(to, kind, d.string())
	case tagBytes:
		return bytesInto(to, kind, d.string())
	case tagTime:
		return timeInto(to, kind, d.time())
	}
	return false
}

func intInto(to unsafe.Pointer, kind valueKind, size uintptr, v int64) bool {
	switch kind {
	case takesInt:
		switch size {
		case 1:
			*(*int8)(to) = int8(v)
			return int64(int8(v)) == v
		case 2:
			*(*int16)(to) = int16(v)
			return int64(int16(v)) == v
		case 4:
			*(*int32)(to) = int32(v)
			return int64(int32(v)) == v
		}
		*(*int64)(to) = v
		return true
	case takesUint:
		if v < 0 {
			return false
		}
		switch size {
		case 1:
			*(*uint8)(to) = uint8(v)
			return int64(uint8(v)) == v
		case 2:
			*(*uint16)(to) = uint16(v)
			return int64(uint16(v)) == v
		case 4:
			*(*uint32)(to) = uint32(v)
			return int64(uint32(v)) == v
		}
		*(*uint64)(to) = uint64(v)
		return true
	case takesNullInt64:
		*(*sql.NullInt64)(to) = sql.NullInt64{Int64: v, Valid: true}
		return true
	}
	return false
}

func floatInto(to unsafe.Pointer, kind valueKind, size uintptr, v float64) bool {
	switch {
	case kind == takesFloat && size == 8:
		*(*float64)(to) = v
		return true
	case kind == takesFloat:
		// Through text, which gives the same number where nothing is to be rounded.
		*(*float32)(to) = float32(v)
		return float64(float32(v)) == v
	case kind == takesNullFloat:
		*(*sql.NullFloat64)(to) = sql.NullFloat64{Float64: v, Valid: true}
		return true
	}
	return false
}

func boolInto(to unsafe.Pointer, kind valueKind, v bool) bool {
	switch kind {
	case takesBool:
		*(*bool)(to) = v
		return true
	case takesNullBool:
		*(*sql.NullBool)(to) = sql.NullBool{Bool: v, Valid: true}
		return true
	}
	return false
}

func stringInto(to unsafe.Pointer, kind valueKind, v string) bool {
	switch kind {
	case takesString:
		*(*string)(to) = v
		return true
	case takesBytes:
		*(*[]byte)(to) = []byte(v)
		return true
	case takesNullString:
		*(*sql.NullString)(to) = sql.NullString{String: v, Valid: true}
		return true
	}
	return false
}

func bytesInto(to unsafe.Pointer, kind valueKind, v string) bool {
	if kind == takesNamedBytes {
		kind = takesBytes
	}
	return stringInto(to, kind, v)
}

func timeInto(to unsafe.Pointer, kind valueKind, v time.Time) bool {
	switch kind {
	case takesTime:
		*(*time.Time)(to) = v
		return true
	case takesNullTime:
		*(*sql.NullTime)(to) = sql.NullTime{Time: v, Valid: true}
		return true
	}
	return false
}

package cachehook

import (
	"database/sql"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"
	"gorm.io/gorm/utils"

	"github.com/gorminfra/infra/internal/replay"
)

// layout says how the fields of one model that a result's columns are scanned
// into are copied. It is compiled once per model and list of columns.
type layout struct {
	schema  *schema.Schema
	columns []string
	fields  []fieldCopy // of the columns that GORM scans into one
	deep    []int       // those of fields that point to memory of their own
	whole   bool        // the fields are all there is in the model
}

// fieldCopy is one field.
type fieldCopy struct {
	field  *schema.Field
	typ    reflect.Type
	column int
	offset uintptr
	how    copyKind
	takes  valueKind // what it can be read from without GORM
	size   uintptr   // of the value that is read, behind a pointer too
	null   any       // what GORM hands to the field's Set for NULL
}

type copyKind uint8

const (
	copyByType copyKind = iota // typed move by reflection
	copy1                      // by size, without pointers
	copy2
	copy4
	copy8
	copyString
	copyTime
	copyPointer // to memory that holds no other
	copyBytes
)

// copiers are the layouts in use, by schema: that of the columns last met.
var copiers sync.Map // *schema.Schema -> *atomic.Pointer[layout]

// layoutOf returns the layout for these columns, or nil where only GORM knows
// how to scan them.
func layoutOf(s *schema.Schema, cols []replay.Column) *layout {
	slot := copierOf(s)
	if l := slot.Load(); l != nil && slices.EqualFunc(l.columns, cols, func(name string, c replay.Column) bool { return name == c.Name }) {
		return l
	}
	names := make([]string, len(cols))
	for i := range cols {
		names[i] = cols[i].Name
	}
	return compileTo(slot, s, names)
}

// layoutNamed is layoutOf for who knows no more of the columns than their names.
func layoutNamed(s *schema.Schema, names []string) *layout {
	slot := copierOf(s)
	if l := slot.Load(); l != nil && slices.Equal(l.columns, names) {
		return l
	}
	return compileTo(slot, s, slices.Clone(names)) // they are the driver's
}

func copierOf(s *schema.Schema) *atomic.Pointer[layout] {
	v, ok := copiers.Load(s)
	if !ok {
		v, _ = copiers.LoadOrStore(s, &atomic.Pointer[layout]{})
	}
	return v.(*atomic.Pointer[layout])
}

func compileTo(slot *atomic.Pointer[layout], s *schema.Schema, names []string) *layout {
	l := compile(s, names)
	if l != nil {
		slot.Store(l)
	}
	return l
}

func compile(s *schema.Schema, names []string) *layout {
	l := &layout{schema: s, columns: names}
	for i, name := range names {
		field := s.LookUpField(name)
		if field == nil || !field.Readable {
			if len(names) == 1 || len(utils.SplitNestedRelationName(name)) > 1 {
				return nil // GORM may scan it into something
			}
			continue
		}
		if field.Serializer != nil || slices.ContainsFunc(l.fields, func(f fieldCopy) bool { return f.field == field }) {
			return nil
		}
		f := fieldCopy{field: field, typ: field.FieldType, column: i}
		var ok bool
		if f.offset, ok = offsetOf(s.ModelType, field.StructField.Index); !ok {
			return nil
		}
		if f.how, ok = kindOf(f.typ); !ok {
			return nil
		}
		f.takes, f.size = valueKindOf(f.typ), f.typ.Size()
		if f.how == copyPointer {
			f.size = f.typ.Elem().Size()
		}
		f.null = reflect.New(reflect.PointerTo(field.IndirectFieldType)).Interface()
		if f.how == copyPointer || f.how == copyBytes {
			l.deep = append(l.deep, len(l.fields))
		}
		l.fields = append(l.fields, f)
	}
	l.whole = l.covers(s.ModelType, 0)
	return l
}

// offsetOf finds a field of a model that lies in it, not behind a pointer.
func offsetOf(model reflect.Type, index []int) (offset uintptr, ok bool) {
	for _, i := range index {
		if i < 0 || model.Kind() != reflect.Struct {
			return 0, false // embedded by pointer
		}
		f := model.Field(i)
		offset += f.Offset
		model = f.Type
	}
	return offset, true
}

// covers reports whether everything in t, which lies at offset, is a field.
func (l *layout) covers(t reflect.Type, offset uintptr) bool {
	if slices.ContainsFunc(l.fields, func(f fieldCopy) bool { return f.offset == offset && f.typ == t }) {
		return true
	}
	if t.Kind() != reflect.Struct || t.NumField() == 0 {
		return false
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if !l.covers(f.Type, offset+f.Offset) {
			return false
		}
	}
	return true
}

// flat are struct types of which a copy shares nothing that could be changed.
// Their own Scanners do no more than to set them.
var flat = map[reflect.Type]bool{
	reflect.TypeFor[time.Time]():       true,
	reflect.TypeFor[gorm.DeletedAt]():  true,
	reflect.TypeFor[sql.NullBool]():    true,
	reflect.TypeFor[sql.NullByte]():    true,
	reflect.TypeFor[sql.NullFloat64](): true,
	reflect.TypeFor[sql.NullInt16]():   true,
	reflect.TypeFor[sql.NullInt32]():   true,
	reflect.TypeFor[sql.NullInt64]():   true,
	reflect.TypeFor[sql.NullString]():  true,
	reflect.TypeFor[sql.NullTime]():    true,
}

var scannerType = reflect.TypeFor[sql.Scanner]()

// kindOf says how a field of the type is copied; not ok when only its own code
// would know.
func kindOf(t reflect.Type) (how copyKind, ok bool) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return copyTime, true
	case flat[t]:
		return copyByType, true
	case t.Implements(scannerType), reflect.PointerTo(t).Implements(scannerType):
		return 0, false
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Int8, reflect.Uint8:
		return copy1, true
	case reflect.Int16, reflect.Uint16:
		return copy2, true
	case reflect.Int32, reflect.Uint32, reflect.Float32:
		return copy4, true
	case reflect.Int64, reflect.Uint64, reflect.Float64:
		return copy8, true
	case reflect.Int, reflect.Uint:
		if t.Size() == 8 {
			return copy8, true
		}
		return copy4, true
	case reflect.String:
		return copyString, true
	case reflect.Pointer:
		how, ok = kindOf(t.Elem())
		return copyPointer, ok && how != copyPointer && how != copyBytes
	case reflect.Slice:
		return copyBytes, t.Elem().Kind() == reflect.Uint8
	}
	return 0, false
}

// shallow copies the field from one model to another; what it points to is
// shared.
func (f *fieldCopy) shallow(dst, src unsafe.Pointer) {
	dst, src = unsafe.Add(dst, f.offset), unsafe.Add(src, f.offset)
	switch f.how {
	case copy1:
		*(*uint8)(dst) = *(*uint8)(src)
	case copy2:
		*(*uint16)(dst) = *(*uint16)(src)
	case copy4:
		*(*uint32)(dst) = *(*uint32)(src)
	case copy8:
		*(*uint64)(dst) = *(*uint64)(src)
	case copyString:
		*(*string)(dst) = *(*string)(src)
	case copyTime:
		*(*time.Time)(dst) = *(*time.Time)(src)
	case copyPointer:
		*(*unsafe.Pointer)(dst) = *(*unsafe.Pointer)(src)
	case copyBytes:
		*(*[]byte)(dst) = *(*[]byte)(src)
	case copyByType:
		reflect.NewAt(f.typ, dst).Elem().Set(reflect.NewAt(f.typ, src).Elem())
	}
}

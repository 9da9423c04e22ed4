package cachehook

import (
	"context"
	"database/sql"
	"reflect"
	"unsafe"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/gorminfra/infra/internal/hook"
)

// snapshot is a result as GORM has scanned it into models. It is immutable; who
// asks gets a copy that shares no more than strings. Plain models alone have
// one: what their fields hold must be a matter of the columns alone, and
// copying must be enough; see [layoutOf].
type snapshot struct {
	layout *layout
	first  unsafe.Pointer // the first model
	rows   int32
	bytes  uint32
	*asides
}

// asides are what a single model rarely has. It weighs little, and shall not weigh
// much more.
type asides struct {
	models   reflect.Value // a slice of models; of a single model nothing
	pointers bool          // a slice of pointers to them is asked for
	arenas   []arena       // of layout.deep
	nulls    []bool        // of a single model: by column, where it was NULL
}

var noAsides asides

// arena holds what the models' fields of one kind point to, one after the other.
type arena struct {
	values reflect.Value // a slice, for pointers
	bytes  []byte        // for byte slices
}

var _ hook.Filler = (*snapshot)(nil)

// unfit stands for the snapshot of a result that cannot have one.
var unfit = &snapshot{}

// takeSnapshot copies what GORM has just scanned from set. It returns unfit when
// only GORM could do so again.
func takeSnapshot(stmt *gorm.Statement, set *rowset) *snapshot {
	dest := stmt.ReflectValue
	to, ok := shapeOf(stmt)
	if !ok {
		return unfit
	}
	s := to.empty(layoutOf(to.schema, set.cols.list), set.values, int(set.rows))
	if s == unfit || s.models.IsValid() && dest.Len() != int(set.rows) {
		return unfit
	}
	from := func(int) reflect.Value { return dest }
	if s.models.IsValid() {
		from = dest.Index
		if s.pointers {
			from = func(i int) reflect.Value { return dest.Index(i).Elem() }
		}
	}
	// Field by field: a single model may hold what the caller had put there.
	size := s.layout.schema.ModelType.Size()
	for i := range int(s.rows) {
		src := from(i).Addr().UnsafePointer()
		for j := range s.layout.fields {
			if !s.null(j) {
				s.layout.fields[j].shallow(unsafe.Add(s.first, uintptr(i)*size), src)
			}
		}
	}
	return s.completed()
}

// shape is what a statement's destination is like: a model, or a list of models.
type shape struct {
	schema   *schema.Schema
	list     bool
	pointers bool // a list of pointers to them
}

// shapeOf returns that of a statement which GORM would scan into by the columns
// alone.
func shapeOf(stmt *gorm.Statement) (to shape, ok bool) {
	if !plainStatement(stmt) || !stmt.ReflectValue.IsValid() || !stmt.ReflectValue.CanSet() {
		return shape{}, false
	}
	to.schema = stmt.Schema
	to.list, to.pointers, ok = destForm(stmt.ReflectValue.Type(), stmt.Schema.ModelType)
	return to, ok
}

// empty makes a snapshot of rows with these values whose models are to be filled; it
// is unfit without a layout.
func (to shape) empty(l *layout, values string, rows int) *snapshot {
	if l == nil {
		return unfit
	}
	s := &snapshot{layout: l, rows: int32(rows), asides: &noAsides}
	switch {
	case to.list:
		s.asides = &asides{pointers: to.pointers, models: reflect.MakeSlice(reflect.SliceOf(to.schema.ModelType), rows, rows)}
		s.first = s.models.UnsafePointer()
	case rows > 0:
		s.rows = 1
		s.first = reflect.New(to.schema.ModelType).UnsafePointer()
		if nulls := nullsOf(values, len(l.columns)); nulls != nil {
			s.asides = &asides{nulls: nulls}
		}
	}
	return s
}

// destForm says whether a destination is a list of models, and if so whether of
// pointers to them. It is not ok when it is neither that nor a model.
func destForm(dest, model reflect.Type) (list, pointers, ok bool) {
	switch {
	case dest == model:
		return false, false, true
	case dest.Kind() != reflect.Slice:
		return false, false, false
	}
	of := dest.Elem()
	pointers = of.Kind() == reflect.Pointer && of.Elem() == model
	return true, pointers, pointers || of == model
}

// completed makes a snapshot whose models are filled stand on its own.
func (s *snapshot) completed() *snapshot {
	bytes := int(unsafe.Sizeof(*s)) + int(s.rows)*int(s.layout.schema.ModelType.Size()) + len(s.nulls)
	bytes += s.own() + s.ownStrings()
	if s.asides != &noAsides {
		bytes += int(unsafe.Sizeof(*s.asides))
	}
	s.bytes = bytesOf(rounded(bytes))
	return s
}

// own gives the snapshot's models memory of their own to point to, and returns
// how much.
func (s *snapshot) own() (bytes int) {
	if len(s.layout.deep) == 0 {
		return 0
	}
	if s.asides == &noAsides {
		s.asides = &asides{}
	}
	size := s.layout.schema.ModelType.Size()
	for _, j := range s.layout.deep {
		f := &s.layout.fields[j]
		var a arena
		if f.how == copyBytes {
			n := 0
			for i := range s.rows {
				n += len(*(*[]byte)(unsafe.Add(s.first, uintptr(i)*size+f.offset)))
			}
			a.bytes = make([]byte, 0, n)
			for i := range s.rows {
				a.bytes = append(a.bytes, *(*[]byte)(unsafe.Add(s.first, uintptr(i)*size+f.offset))...)
			}
			bytes += n + arenaBytes
		} else {
			a.values = reflect.MakeSlice(reflect.SliceOf(f.typ.Elem()), 0, int(s.rows))
			for i := range s.rows {
				if p := *(*unsafe.Pointer)(unsafe.Add(s.first, uintptr(i)*size+f.offset)); p != nil {
					a.values = reflect.Append(a.values, reflect.NewAt(f.typ.Elem(), p).Elem())
				}
			}
			bytes += a.values.Cap()*int(f.typ.Elem().Size()) + arenaBytes
		}
		s.arenas = append(s.arenas, a)
	}
	s.detach(s.first)
	return bytes
}

// ownStrings gathers what the models' strings hold: rows may have lent it out of
// all that they hold, and one by one each string takes a little more.
func (s *snapshot) ownStrings() (n int) {
	s.eachString(func(text *string) { n += len(*text) })
	if n == 0 {
		return 0
	}
	all := make([]byte, 0, n)
	s.eachString(func(text *string) {
		at := len(all)
		all = append(all, *text...)
		*text = lent(all[at:]) // nobody writes there any more
	})
	return n
}

// eachString visits the strings of the snapshot's own models.
func (s *snapshot) eachString(visit func(*string)) {
	size := s.layout.schema.ModelType.Size()
	for j := range s.layout.fields {
		f := &s.layout.fields[j]
		if f.how == copyString || f.typ == reflect.TypeFor[sql.NullString]() {
			for i := range s.rows { // the string of a NullString is its first field
				visit((*string)(unsafe.Add(s.first, uintptr(i)*size+f.offset)))
			}
		}
	}
	for k, j := range s.layout.deep {
		f := &s.layout.fields[j]
		if f.how == copyPointer && (f.typ.Elem().Kind() == reflect.String || f.typ.Elem() == reflect.TypeFor[sql.NullString]()) {
			values := s.arenas[k].values
			first := values.UnsafePointer()
			for i := range values.Len() {
				visit((*string)(unsafe.Add(first, uintptr(i)*f.typ.Elem().Size())))
			}
		}
	}
}

// arenaBytes is what an arena holds beside its values.
const arenaBytes = int(unsafe.Sizeof(arena{}))

// detach makes models at p, copied from the snapshot's, point to copies of what
// the arenas hold.
func (s *snapshot) detach(p unsafe.Pointer) {
	size := s.layout.schema.ModelType.Size()
	for k, j := range s.layout.deep {
		if s.null(j) { // the field is what the caller and GORM have made it
			continue
		}
		f, a := &s.layout.fields[j], &s.arenas[k]
		if f.how == copyBytes {
			own := append(make([]byte, 0, len(a.bytes)), a.bytes...)
			at := 0
			for i := range s.rows {
				b := (*[]byte)(unsafe.Add(p, uintptr(i)*size+f.offset))
				if *b != nil {
					end := at + len(*b)
					*b, at = own[at:end:end], end // the capacity keeps neighbours apart
				}
			}
			continue
		}
		n := a.values.Len()
		if n == 0 {
			continue
		}
		own := reflect.MakeSlice(a.values.Type(), n, n)
		reflect.Copy(own, a.values)
		next, step := own.UnsafePointer(), f.typ.Elem().Size()
		for i := range s.rows {
			q := (*unsafe.Pointer)(unsafe.Add(p, uintptr(i)*size+f.offset))
			if *q != nil {
				if n--; n >= 0 {
					*q = next
				}
				if n > 0 {
					next = unsafe.Add(next, step) // never past the end
				}
			}
		}
	}
}

// null reports whether the field's column was NULL in the row of a single model.
func (s *snapshot) null(j int) bool { return s.nulls != nil && s.nulls[s.layout.fields[j].column] }

// plainStatement reports whether GORM would scan rows by their columns alone.
func plainStatement(stmt *gorm.Statement) bool {
	return stmt.Schema != nil && len(stmt.Joins) == 0 && len(stmt.ColumnMapping) == 0
}

// fits reports whether the statement's destination is the one of the snapshot.
func (s *snapshot) fits(stmt *gorm.Statement) bool {
	if s == unfit {
		return false
	}
	to, ok := shapeOf(stmt)
	return ok && to == shape{s.layout.schema, s.models.IsValid(), s.pointers}
}

// Fill implements hook.Filler.
func (s *snapshot) Fill(stmt *gorm.Statement) int64 {
	dest := stmt.ReflectValue
	switch {
	case !s.models.IsValid():
		if s.rows > 0 {
			s.fillOne(stmt.Context, dest)
		}
	case !s.pointers:
		makeRoom(dest, int(s.rows))
		if s.rows > 0 {
			reflect.Copy(dest, s.models)
			s.detach(dest.UnsafePointer())
		}
	default:
		makeRoom(dest, int(s.rows))
		if s.rows == 0 {
			break
		}
		own := reflect.MakeSlice(s.models.Type(), int(s.rows), int(s.rows))
		reflect.Copy(own, s.models)
		p, size := own.UnsafePointer(), s.layout.schema.ModelType.Size()
		s.detach(p)
		pointers := unsafe.Slice((*unsafe.Pointer)(dest.UnsafePointer()), s.rows)
		for i := range pointers {
			pointers[i] = unsafe.Add(p, uintptr(i)*size)
		}
	}
	return int64(s.rows)
}

// makeRoom makes dest n long, in the caller's own memory where it is enough, as
// GORM does.
func makeRoom(dest reflect.Value, n int) {
	switch {
	case n == 0 && dest.IsNil():
		dest.Set(reflect.MakeSlice(dest.Type(), 0, 0))
	case dest.Cap() < n:
		dest.SetZero()
		dest.Grow(n) // without the headers that a slice of MakeSlice passes through
	}
	dest.SetLen(n)
}

// fillOne sets the fields of a model, and leaves its others alone.
func (s *snapshot) fillOne(ctx context.Context, dest reflect.Value) {
	to := dest.Addr().UnsafePointer()
	if s.layout.whole && s.nulls == nil {
		dest.Set(reflect.NewAt(s.layout.schema.ModelType, s.first).Elem())
		s.detach(to)
		return
	}
	for j := range s.layout.fields {
		f := &s.layout.fields[j]
		if s.null(j) {
			// GORM leaves some kinds of fields as they are, and empties others.
			_ = f.field.Set(ctx, dest, f.null)
			continue
		}
		f.shallow(to, s.first)
	}
	s.detach(to)
}

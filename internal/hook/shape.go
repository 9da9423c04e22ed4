package hook

import (
	"database/sql"
	"reflect"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// shape is all that decides the text which GORM builds of a statement, besides its
// schema: every name, every piece of SQL, and of the values no more than that each is
// one argument. It is made of what GORM's own types say; with a type that it does
// not know, or with a value that may say itself how it is written, there is none.
//
// It lies on the stack, so that it has room for a statement of the usual size alone.
type shape struct {
	room  [256]byte // each string led by its length, each list by how many there are
	used  int       // of room; more than that: it was too little
	args  [8]any    // in the order in which the text has them
	given int       // of args; more than that: likewise
}

// key is what two shapes have in common that are the same.
func (s *shape) key() []byte { return s.room[:s.used] }

// values are the arguments.
func (s *shape) values() []any { return s.args[:s.given] }

// fits reports whether there was room for it.
func (s *shape) fits() bool { return s.used <= len(s.room) && s.given <= len(s.args) }

// The parts of a shape.
const (
	partDistinct byte = 1 << iota
	partUnscoped
	partSoftDeleted // the condition of a soft delete is there already
	partTable       // an expression for the table follows
)

const (
	partWhere byte = 0x40 + iota
	partOrderBy
	partLimit
	partEq
	partNeq
	partGt
	partGte
	partLt
	partLte
	partLike
	partIn
	partAnd
	partExpr
	partName
	partColumn
	partValue
	partNull
)

// of makes the shape of a query with clauses of these names. It reports false where
// there is none.
func (s *shape) of(stmt *gorm.Statement, names []string) bool {
	if !plainTarget(stmt) {
		return false
	}
	flags := byte(0)
	if stmt.Distinct {
		flags |= partDistinct
	}
	if len(stmt.Schema.QueryClauses) > 0 {
		if !softDeletes(stmt) {
			return false
		}
		if stmt.Unscoped {
			flags |= partUnscoped
		}
		if _, done := stmt.Clauses["soft_delete_enabled"]; done {
			flags |= partSoftDeleted
		}
	}
	if stmt.TableExpr != nil {
		if len(stmt.TableExpr.Vars) > 0 {
			return false
		}
		s.byte(flags | partTable)
		s.string(stmt.TableExpr.SQL)
	} else {
		s.byte(flags)
	}
	s.string(stmt.Table)
	left := len(stmt.Clauses)
	for i, name := range names {
		if left == 0 {
			break
		}
		c, there := stmt.Clauses[name]
		if !there {
			continue
		}
		if s.byte(byte(i)); !s.clause(&c) {
			return false
		}
		left--
	}
	return s.fits()
}

// plainTarget reports whether the statement asks for all columns of one table, for a
// model or a list of them, and names no row by a key that is in the model already.
func plainTarget(stmt *gorm.Statement) bool {
	if stmt.Schema == nil || stmt.Table == "" || stmt.SQL.Len() > 0 || len(stmt.Vars) > 0 || len(stmt.Joins) > 0 || len(stmt.Selects) > 0 || len(stmt.Omits) > 0 {
		return false
	}
	dest := stmt.ReflectValue
	switch dest.Kind() {
	case reflect.Struct:
		if dest.Type() != stmt.Schema.ModelType {
			return false
		}
		for _, f := range stmt.Schema.PrimaryFields {
			if _, zero := f.ValueOf(stmt.Context, dest); !zero {
				return false
			}
		}
		return true
	case reflect.Slice:
		of := dest.Type().Elem()
		return of == stmt.Schema.ModelType || of.Kind() == reflect.Pointer && of.Elem() == stmt.Schema.ModelType
	}
	return false
}

// softDeletes reports whether what the schema adds to a query is no more than GORM's
// own condition of a soft delete.
func softDeletes(stmt *gorm.Statement) bool {
	for _, c := range stmt.Schema.QueryClauses {
		if d, ok := c.(gorm.SoftDeleteQueryClause); !ok || d.ZeroValue.Valid {
			return false
		}
	}
	return true
}

func (s *shape) byte(b byte) {
	if s.used < len(s.room) {
		s.room[s.used] = b
	}
	s.used++
}

func (s *shape) string(text string) {
	s.byte(byte(len(text) >> 8)) // one that is longer than two bytes can say has no room
	s.byte(byte(len(text)))
	if s.used < len(s.room) {
		copy(s.room[s.used:], text)
	}
	s.used += len(text)
}

func (s *shape) flag(set bool) {
	if set {
		s.byte(1)
		return
	}
	s.byte(0)
}

// list adds how many things follow, which are more than there is room for where a
// byte cannot say it.
func (s *shape) list(part byte, n int) {
	s.byte(part)
	s.byte(byte(n))
	if n > 0xff {
		s.used += len(s.room)
	}
}

func (s *shape) arg(v any) {
	if s.given < len(s.args) {
		s.args[s.given] = v
	}
	s.given++
}

// clause adds a clause that the statement had before GORM builds it.
func (s *shape) clause(c *clause.Clause) bool {
	if c.Builder != nil || c.BeforeExpression != nil || c.AfterNameExpression != nil || c.AfterExpression != nil {
		return false
	}
	switch e := c.Expression.(type) {
	case clause.Where:
		s.list(partWhere, len(e.Exprs))
		s.string(c.Name)
		return s.conditions(e.Exprs)
	case clause.OrderBy:
		if e.Expression != nil {
			return false
		}
		s.list(partOrderBy, len(e.Columns))
		s.string(c.Name)
		for i := range e.Columns {
			s.flag(e.Columns[i].Desc)
			s.column(&e.Columns[i].Column)
		}
		return true
	case clause.Limit:
		s.byte(partLimit)
		s.string(c.Name)
		limited := e.Limit != nil && *e.Limit >= 0
		if s.flag(limited); limited {
			s.arg(*e.Limit)
		}
		if s.flag(e.Offset > 0); e.Offset > 0 {
			s.arg(e.Offset)
		}
		return true
	}
	return false // of SELECT and FROM: there is none yet
}

func (s *shape) conditions(list []clause.Expression) bool {
	for _, e := range list {
		if !s.condition(e) {
			return false
		}
	}
	return true
}

// condition adds one. An OR is none of them: GORM changes the order of its list while
// it builds it.
func (s *shape) condition(e clause.Expression) bool {
	switch e := e.(type) {
	case clause.Eq:
		return s.compare(partEq, e.Column, e.Value)
	case clause.Neq:
		return s.compare(partNeq, e.Column, e.Value)
	case clause.Gt:
		return s.compare(partGt, e.Column, e.Value)
	case clause.Gte:
		return s.compare(partGte, e.Column, e.Value)
	case clause.Lt:
		return s.compare(partLt, e.Column, e.Value)
	case clause.Lte:
		return s.compare(partLte, e.Column, e.Value)
	case clause.Like:
		return s.compare(partLike, e.Column, e.Value)
	case clause.IN:
		s.list(partIn, len(e.Values))
		return s.name(e.Column) && s.all(e.Values)
	case clause.AndConditions:
		s.list(partAnd, len(e.Exprs))
		return s.conditions(e.Exprs)
	case clause.Expr:
		s.list(partExpr, len(e.Vars))
		s.string(e.SQL)
		s.flag(e.WithoutParentheses)
		return s.all(e.Vars)
	}
	return false
}

func (s *shape) compare(part byte, column, value any) bool {
	s.byte(part)
	if !s.name(column) {
		return false
	}
	if part == partEq || part == partNeq {
		null, is := value.(sql.NullString)
		if value == nil || is && !null.Valid {
			s.byte(partNull) // written as NULL: no argument
			return true
		}
	}
	s.byte(partValue)
	return s.value(value)
}

// name adds what GORM quotes.
func (s *shape) name(column any) bool {
	switch c := column.(type) {
	case string:
		s.byte(partName)
		s.string(c)
		return true
	case clause.Column:
		s.column(&c)
		return true
	}
	return false
}

func (s *shape) column(c *clause.Column) {
	s.byte(partColumn)
	s.string(c.Table)
	s.string(c.Name)
	s.string(c.Alias)
	s.flag(c.Raw)
}

func (s *shape) all(list []any) bool {
	for _, v := range list {
		if !s.value(v) {
			return false
		}
	}
	return true
}

// value adds an argument, if GORM and the dialect take its kind for one whatever it
// is. A named type may have methods that say otherwise.
func (s *shape) value(v any) bool {
	switch v.(type) {
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64, bool, string, time.Time:
		s.arg(v)
		return true
	}
	return false
}

package hook

import (
	"hash/maphash"
	"slices"
	"sync/atomic"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/schema"
)

// texts remembers what GORM makes of statements of the same shape: to quote each
// name anew, byte by byte, takes a third of the time of a read that is answered from
// memory. GORM itself builds each shape at first, and only what is the same afterwards
// whatever the values is remembered; see [shape].
//
// The table is direct-mapped. A shape gets its place when it comes twice in a row
// there, so that texts which are made up for one statement cost no memory.
type texts struct {
	clauses []string       // names of the clauses of a query, as GORM's processor has them
	dialect gorm.Dialector // nil: nothing is remembered
	seed    maphash.Seed
	slots   [textSlots]atomic.Pointer[builtText]
	seen    [textSlots]atomic.Uint64 // the sum of what was built last
}

const textSlots = 512 // a power of two

// builtText is what GORM has made of a shape.
type builtText struct {
	schema *schema.Schema
	shape  string
	text   string
}

// What GORM adds to a query that has said nothing of its own. They are shared: nobody
// can change what an interface holds.
var (
	everything         clause.Expression = clause.Select{}
	everythingDistinct clause.Expression = clause.Select{Distinct: true}
	itsTable           clause.Expression = clause.From{}
)

// rememberTexts is for Initialize. Only what is known of a dialect, that it quotes a
// name and numbers an argument always alike, lets its texts be remembered.
func (h *Hub) rememberTexts(db *gorm.DB) {
	if d, ok := db.Dialector.(*postgres.Dialector); ok {
		h.texts.clauses, h.texts.dialect, h.texts.seed = db.Callback().Query().Clauses, d, maphash.MakeSeed()
	}
}

// build does what GORM's callbacks.BuildQuerySQL does.
func (t *texts) build(db *gorm.DB) {
	var s shape
	if !t.knows(db) || !s.of(db.Statement, t.clauses) {
		callbacks.BuildQuerySQL(db)
		return
	}
	stmt := db.Statement
	sum := maphash.Bytes(t.seed, s.key())
	slot := &t.slots[sum%textSlots]
	if b := slot.Load(); b != nil && b.schema == stmt.Schema && b.shape == string(s.key()) {
		for _, c := range stmt.Schema.QueryClauses {
			stmt.AddClause(c)
		}
		selected := everything
		if stmt.Distinct {
			selected = everythingDistinct
		}
		stmt.Clauses["FROM"] = clause.Clause{Name: "FROM", Expression: itsTable}
		stmt.Clauses["SELECT"] = clause.Clause{Name: "SELECT", Expression: selected}
		stmt.SQL.WriteString(b.text)
		stmt.Vars = append(stmt.Vars, s.values()...)
		return
	}
	callbacks.BuildQuerySQL(db)
	if t.seen[sum%textSlots].Swap(sum) == sum && db.Error == nil && asForeseen(stmt, s.values()) {
		slot.Store(&builtText{stmt.Schema, string(s.key()), stmt.SQL.String()})
	}
}

// knows reports whether the statement is built by nothing but GORM and the dialect.
func (t *texts) knows(db *gorm.DB) bool {
	c := db.Statement.BuildClauses
	return t.dialect != nil && db.Dialector == t.dialect && len(db.ClauseBuilders) == 0 && !db.QueryFields &&
		len(c) > 0 && len(c) == len(t.clauses) && &c[0] == &t.clauses[0]
}

// asForeseen reports whether GORM has built what texts.build makes of a shape that it
// knows: these arguments, and these clauses.
func asForeseen(stmt *gorm.Statement, args []any) bool {
	from, ok := stmt.Clauses["FROM"].Expression.(clause.From)
	if !ok || from.Tables != nil || from.Joins != nil {
		return false
	}
	selected, ok := stmt.Clauses["SELECT"].Expression.(clause.Select)
	if !ok || selected.Distinct != stmt.Distinct || selected.Columns != nil || selected.Expression != nil {
		return false
	}
	return slices.Equal(stmt.Vars, args)
}

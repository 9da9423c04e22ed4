package hook

import (
	"runtime"
	"slices"
	"strings"
	"sync"

	"gorm.io/gorm/clause"
)

// maxCallers bounds the stack that is kept; GORM's own frames for an
// association are about fifteen.
const maxCallers = 32

// captureCallers keeps the stack of a statement whose record may be finished
// elsewhere.
func (r *Record) captureCallers() {
	for _, o := range r.stages.observers {
		if w, ok := o.(interface{ WantsCallers() bool }); ok && w.WantsCallers() {
			r.Callers()
			return
		}
	}
}

// Callers returns the program counters of the stack that runs the statement,
// innermost first, captured at the first call: 350 ns and one allocation. Call
// it from a stage, on the statement's goroutine.
func (r *Record) Callers() []uintptr {
	if r.few().callers == nil {
		var pcs [maxCallers]uintptr
		n := runtime.Callers(2, pcs[:])
		r.setRare().callers = append(make([]uintptr, 0, n), pcs[:n]...)
	}
	return r.rare.callers
}

// Site returns the program counter of the innermost frame that belongs to
// neither GORM, database/sql, nor this plugin: the line that ran the statement.
// Zero when there is none. It costs what Callers does, and resolves no symbol
// that it has met before.
func (r *Record) Site() uintptr {
	for _, pc := range r.Callers() {
		if !plumbing.has(pc) {
			return pc
		}
	}
	return 0
}

// ofMigrator recognises the one read of GORM's migrators that looks like a
// program's own, SELECT * FROM t LIMIT 1 for the columns of t. What a migrator
// reads must be today's, as all that is read of the catalogue.
func (r *Record) ofMigrator() bool {
	if t := r.Text; r.Chain != Row || r.Schema != nil || !t.Limit || len(t.Reads) != 1 || len(t.Where) > 0 {
		return false
	}
	return slices.ContainsFunc(r.Callers(), migratorFrames.has)
}

// ofFirstOr recognises the look-up of FirstOrCreate and FirstOrInit: a row that a
// replica or a cache does not have yet would be made twice. No other terminal of
// GORM makes a Find of one row, so that few statements' stacks are looked at.
func (r *Record) ofFirstOr() bool {
	if r.Chain != Query || r.Where != Pooled || !r.Text.Limit {
		return false
	}
	stmt := r.DB.Statement
	if stmt.RaiseErrorOnNotFound {
		return false
	}
	limit, ok := stmt.Clauses["LIMIT"].Expression.(clause.Limit)
	if !ok || limit.Limit == nil || *limit.Limit != 1 {
		return false
	}
	return slices.ContainsFunc(r.Callers(), firstOrFrames.has)
}

// SiteFrame resolves a program counter of Site for a report.
func SiteFrame(pc uintptr) runtime.Frame {
	frames := runtime.CallersFrames([]uintptr{pc})
	f, _ := frames.Next()
	return f
}

// Plumbing reports whether the frame at pc belongs to GORM, database/sql, the
// runtime or this plugin. It resolves no symbol that it has met before.
func Plumbing(pc uintptr) bool { return plumbing.has(pc) }

// frameSet remembers per program counter whether its frame is one of a kind. A
// program has few, so the map stays small.
type frameSet struct {
	of    func(function, file string) bool
	known sync.Map // uintptr -> bool
}

var (
	plumbing       = frameSet{of: plumbingFrame}
	migratorFrames = frameSet{of: func(function, _ string) bool { return strings.HasSuffix(function, ".Migrator.ColumnTypes") }}
	firstOrFrames  = frameSet{of: func(function, _ string) bool {
		return function == "gorm.io/gorm.(*DB).FirstOrCreate" || function == "gorm.io/gorm.(*DB).FirstOrInit"
	}}
)

func (s *frameSet) has(pc uintptr) bool {
	if v, ok := s.known.Load(pc); ok {
		return v.(bool)
	}
	f := SiteFrame(pc)
	is := s.of(f.Function, f.File)
	s.known.Store(pc, is)
	return is
}

const module = "github.com/gorminfra/infra"

func plumbingFrame(function, file string) bool {
	if strings.HasSuffix(file, "_test.go") {
		return false
	}
	for _, prefix := range []string{"gorm.io/", "database/sql.", "runtime.", "reflect.", "iter.", "slices."} {
		if strings.HasPrefix(function, prefix) {
			return true
		}
	}
	rest, ours := strings.CutPrefix(function, module)
	return ours && !strings.HasPrefix(rest, "/examples/") && !strings.HasPrefix(rest, "/bench/")
}

package hook

import (
	"reflect"

	"gorm.io/gorm"
)

// Hint is what dbresolver's clauses ask for.
type Hint struct {
	Write bool   // dbresolver.Write
	Read  bool   // dbresolver.Read
	Use   string // dbresolver.Use(name)
	// Table is the table that the statement is about, set for a transaction only:
	// a statement's record tells it.
	Table string
}

// The keys are dbresolver's own.
func hintOf(stmt *gorm.Statement) Hint {
	var h Hint
	if !untouched(&stmt.Settings) {
		_, h.Write = stmt.Settings.Load("gorm:db_resolver:write")
		_, h.Read = stmt.Settings.Load("gorm:db_resolver:read")
	}
	if c, ok := stmt.Clauses["gorm:db_resolver:using"]; ok {
		if v := reflect.ValueOf(c.Expression); v.Kind() == reflect.Struct && v.NumField() == 1 && v.Field(0).Kind() == reflect.String {
			h.Use = v.Field(0).String()
		}
	}
	return h
}

// hintBegin is called by dbresolver's clauses when they are put on a statement:
// a Begin that follows sees only the statement's pool. In the query chain
// itself, where GORM calls it too, there is nothing to do.
func (h *Hub) hintBegin(db *gorm.DB) {
	stmt := db.Statement
	if len(stmt.BuildClauses) > 0 || h.pool == nil {
		return
	}
	if hinted := h.hinted(stmt.ConnPool, h.hintOfBegin(stmt)); hinted != nil {
		stmt.ConnPool = hinted
	}
}

// hinted returns pool with a hint for a Begin, or nil if it is not ours.
func (h *Hub) hinted(pool gorm.ConnPool, hint Hint) gorm.ConnPool {
	switch p := pool.(type) {
	case *Pool:
		if p.hub == h {
			return &Pool{hub: h, hint: hint}
		}
	case *gorm.PreparedStmtDB:
		if inner, ok := p.ConnPool.(*Pool); ok && inner.hub == h {
			return &gorm.PreparedStmtDB{ConnPool: &Pool{hub: h, hint: hint}, Mux: p.Mux, Stmts: p.Stmts}
		}
	}
	return nil
}

// hintOfBegin is hintOf with the statement's table, where the router asks for it.
func (h *Hub) hintOfBegin(stmt *gorm.Statement) Hint {
	hint := hintOf(stmt)
	switch {
	case h.stages.Load().placer == nil:
	case stmt.Table != "":
		hint.Table = stmt.Table
	case stmt.Schema != nil:
		hint.Table = stmt.Schema.Table
	case stmt.Model != nil:
		s := &gorm.Statement{DB: stmt.DB}
		if s.Parse(stmt.Model) == nil {
			hint.Table = s.Table
		}
	}
	return hint
}

func hintOfPool(pool gorm.ConnPool) Hint {
	if prepared, ok := pool.(*gorm.PreparedStmtDB); ok {
		pool = prepared.ConnPool
	}
	if p, ok := pool.(*Pool); ok {
		return p.hint
	}
	return Hint{}
}

// beginHinted lets GORM's default transaction of a write begin where the
// statement belongs.
func (h *Hub) beginHinted(db *gorm.DB, begin func(*gorm.DB)) {
	stmt := db.Statement
	before := stmt.ConnPool
	placed := h.stages.Load().placer != nil
	if db.SkipDefaultTransaction || !placed && !hintOfPool(before).Read {
		begin(db)
		return
	}
	hint := h.hintOfBegin(stmt)
	hint.Read = false // a write is none, whatever the clause says
	hinted := h.hinted(before, hint)
	if hinted == nil {
		begin(db)
		return
	}
	stmt.ConnPool = hinted
	begin(db)
	if stmt.ConnPool == hinted { // none was begun
		stmt.ConnPool = before
	}
}

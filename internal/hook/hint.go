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
}

// The keys are dbresolver's own.
func hintOf(stmt *gorm.Statement) Hint {
	var h Hint
	_, h.Write = stmt.Settings.Load("gorm:db_resolver:write")
	_, h.Read = stmt.Settings.Load("gorm:db_resolver:read")
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
	hinted := &Pool{hub: h, hint: hintOf(stmt)}
	switch p := stmt.ConnPool.(type) {
	case *Pool:
		if p.hub == h {
			stmt.ConnPool = hinted
		}
	case *gorm.PreparedStmtDB:
		if inner, ok := p.ConnPool.(*Pool); ok && inner.hub == h {
			stmt.ConnPool = &gorm.PreparedStmtDB{ConnPool: hinted, Mux: p.Mux, Stmts: p.Stmts}
		}
	}
}

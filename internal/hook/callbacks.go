package hook

import (
	"database/sql"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"
	"gorm.io/gorm/clause"

	"github.com/gorminfra/infra/internal/replay"
)

// The keys under which a statement's Settings carry what its preloads need.
// Settings are what GORM copies from a parent to its preloads.
const (
	preloadSelf   = "infra:preload_self"   // this statement's own record
	preloadParent = "infra:preload_parent" // the record of the statement this one is a preload of
	pinnedConn    = "infra:pinned"         // the connection to go back to after a default transaction
	gateWait      = "infra:gate_wait"      // how long a write waited at the gate
)

// processor is the part of GORM's unexported processor that is needed here.
type processor interface {
	Get(name string) func(*gorm.DB)
	Replace(name string, fn func(*gorm.DB)) error
}

func (h *Hub) wrapCallbacks(db *gorm.DB) error {
	cb := db.Callback()
	terminals := []struct {
		chain Chain
		p     processor
		name  string
	}{
		{Create, cb.Create(), "gorm:create"},
		{Query, cb.Query(), "gorm:query"},
		{Update, cb.Update(), "gorm:update"},
		{Delete, cb.Delete(), "gorm:delete"},
		{Row, cb.Row(), "gorm:row"},
		{Raw, cb.Raw(), "gorm:raw"},
	}
	for _, t := range terminals {
		if t.p.Get(t.name) == nil {
			return fmt.Errorf("hook: the dialector %q registers no callback %q: GORM's default callbacks are needed", db.Dialector.Name(), t.name)
		}
	}
	for _, t := range terminals {
		if err := t.p.Replace(t.name, h.terminal(t.chain, t.p.Get(t.name))); err != nil {
			return err
		}
	}
	if preload := cb.Query().Get("gorm:preload"); preload != nil {
		if err := cb.Query().Replace("gorm:preload", wrapPreload(preload)); err != nil {
			return err
		}
	}
	if after := cb.Query().Get("gorm:after_query"); after != nil && isGORMs(after, callbacks.AfterQuery) {
		if err := cb.Query().Replace("gorm:after_query", afterQuery); err != nil {
			return err
		}
	}
	for _, p := range []processor{cb.Create(), cb.Update(), cb.Delete()} {
		if err := h.wrapDefaultTransaction(p); err != nil {
			return err
		}
	}
	// "*" and not "gorm:begin_transaction": under SkipDefaultTransaction that
	// callback does not exist, and GORM would then sort the gate to the end.
	if err := cb.Create().Before("*").Register("infra:gate", h.gate(Create)); err != nil {
		return err
	}
	if err := cb.Update().Before("*").Register("infra:gate", h.gate(Update)); err != nil {
		return err
	}
	if err := cb.Delete().Before("*").Register("infra:gate", h.gate(Delete)); err != nil {
		return err
	}
	// dbresolver's clauses look for a callback of this name when they are put on
	// a statement; that is how they reach a following Begin.
	return cb.Query().Before("*").Register(dbresolverName, h.hintBegin)
}

// gate asks the gates before GORM's default transaction.
func (h *Hub) gate(chain Chain) func(*gorm.DB) {
	return func(db *gorm.DB) {
		st := h.stages.Load()
		if db.DryRun || db.Error != nil {
			return
		}
		if err := h.conflict(db); err != nil {
			_ = db.AddError(err)
			return
		}
		if len(st.gates) == 0 {
			return
		}
		r := h.newRecord(st, chain, db, db.Statement.ConnPool)
		r.Access = Write
		r.findScope(r.Context)
		if err := r.passGates(r.Context); err != nil {
			r.Err = db.AddError(err)
			r.finish(true)
		} else if r.Waited > 0 {
			db.Statement.Settings.Store(gateWait, waitedAtGate{db.Statement, r.Waited})
		}
	}
}

// waitedAtGate is for the record that the terminal callback of the same
// statement makes: associations copy Settings.
type waitedAtGate struct {
	stmt *gorm.Statement
	d    time.Duration
}

// addGateWait counts what a write waited at the gate as its own time.
func (r *Record) addGateWait(stmt *gorm.Statement) {
	v, ok := setting(stmt, gateWait)
	if w, _ := v.(waitedAtGate); ok && w.stmt == stmt {
		stmt.Settings.Delete(gateWait)
		r.Waited += w.d
		r.Start = r.Start.Add(-w.d)
	}
}

// terminal wraps the callback that runs the statement.
func (h *Hub) terminal(chain Chain, original func(*gorm.DB)) func(*gorm.DB) {
	fillable := chain == Query && isGORMs(original, callbacks.Query)
	return func(db *gorm.DB) {
		switch {
		case db.DryRun:
			h.dryRun(chain, fillable, db, original)
			return
		case db.Error != nil:
			original(db)
			return
		}
		stmt := db.Statement
		if err := h.conflict(db); err != nil {
			refuse(chain, db, err)
			original(db) // leaves the statement as any failed one
			return
		}
		r := h.newRecord(h.stages.Load(), chain, db, stmt.ConnPool)
		if chain == Row {
			r.captureCallers()
		}
		if chain.writes() {
			r.addGateWait(stmt)
		}
		swapped := r.statementPool()
		stmt.ConnPool = swapped
		completed := false
		defer func() {
			if stmt.ConnPool == swapped {
				stmt.ConnPool = r.orig
			}
			r.tellLostAnswer(db)
			r.Rows, r.Err = db.RowsAffected, rowError(db)
			if len(stmt.Preloads) > 0 {
				stmt.Settings.Store(preloadSelf, r)
			}
			if completed && r.handOver() {
				return // finished by Rows.Close
			}
			r.finish(completed)
		}()
		if r.fillable = fillable; fillable {
			r.plainQuery(db)
			r.scanned(db)
		} else {
			original(db)
		}
		completed = true
	}
}

// refuse gives the caller err. A missing *sql.Row would make its Scan panic.
func refuse(chain Chain, db *gorm.DB, err error) {
	_ = db.AddError(err)
	if rows, _ := db.Get("rows"); chain == Row && rows != true {
		db.Statement.Dest = replay.ErrorRow(err)
	}
}

// rowError is the statement's error; a *sql.Row keeps its own.
func rowError(db *gorm.DB) error {
	if row, ok := db.Statement.Dest.(*sql.Row); ok && row != nil && db.Error == nil {
		return row.Err()
	}
	return db.Error
}

// wrapPreload lets the statements of a preload know their parent.
func wrapPreload(original func(*gorm.DB)) func(*gorm.DB) {
	return func(db *gorm.DB) {
		if len(db.Statement.Preloads) == 0 {
			original(db)
			return
		}
		settings := &db.Statement.Settings
		self, ok := settings.LoadAndDelete(preloadSelf)
		if !ok || db.Error != nil {
			original(db)
			return
		}
		before, nested := settings.Swap(preloadParent, self)
		defer func() {
			if nested {
				settings.Store(preloadParent, before)
			} else {
				settings.Delete(preloadParent)
			}
		}()
		original(db)
	}
}

// afterQuery is GORM's callbacks.AfterQuery but for statements for which that has
// nothing to do: it takes the joins out of a FROM that has none, by way of two copies
// of it, and calls the AfterFind of models.
func afterQuery(db *gorm.DB) {
	stmt := db.Statement
	if db.Error == nil && stmt.Schema != nil && !stmt.SkipHooks && stmt.Schema.AfterFind && db.RowsAffected > 0 {
		callbacks.AfterQuery(db)
		return
	}
	if from, ok := stmt.Clauses["FROM"].Expression.(clause.From); ok && from.Joins != nil {
		callbacks.AfterQuery(db)
	}
}

// wrapDefaultTransaction keeps a connection of db.Connection pinned. GORM
// begins on it, but puts the configured pool back afterwards, and its
// transaction would not be seen.
func (h *Hub) wrapDefaultTransaction(p processor) error {
	begin, end := p.Get("gorm:begin_transaction"), p.Get("gorm:commit_or_rollback_transaction")
	if begin == nil || end == nil {
		return nil
	}
	err := p.Replace("gorm:begin_transaction", func(db *gorm.DB) {
		stmt := db.Statement
		if db.DryRun || isHybrid(stmt.ConnPool) {
			return // a dry run needs no connection, although GORM takes one
		}
		if conn, ok := stmt.ConnPool.(*sql.Conn); ok && !db.SkipDefaultTransaction && db.Error == nil {
			stmt.Settings.Store(pinnedConn, pinned{stmt, conn})
			stmt.ConnPool = &Conn{Conn: conn, hub: h}
		}
		h.beginHinted(db, begin)
	})
	if err != nil {
		return err
	}
	return p.Replace("gorm:commit_or_rollback_transaction", func(db *gorm.DB) {
		end(db)
		stmt := db.Statement
		// Associations copy Settings: only the statement that stored it takes it.
		if v, ok := setting(stmt, pinnedConn); ok && v.(pinned).stmt == stmt {
			stmt.Settings.Delete(pinnedConn)
			stmt.ConnPool = v.(pinned).conn
		}
	})
}

// isHybrid recognises a pool that another plugin put around ours and that is
// pool and transaction in one, as sharding's is. Around a *sql.DB it begins
// nothing, and around a *sql.Tx it commits nothing, so GORM's default
// transaction has no effect with it. Around our pool it would hand out our
// transaction and be left behind, and around our transaction it would commit it
// with the first statement.
func isHybrid(pool gorm.ConnPool) bool {
	switch pool.(type) {
	case *Pool, *Tx, *gorm.PreparedStmtDB, *gorm.PreparedStmtTX, *sql.Conn:
		return false
	}
	_, begins := pool.(gorm.ConnPoolBeginner)
	_, commits := pool.(gorm.TxCommitter)
	if !begins || !commits {
		return false
	}
	switch belowWrapper(pool).(type) {
	case *Pool, *Tx:
		return true
	}
	return false
}

type pinned struct {
	stmt *gorm.Statement
	conn *sql.Conn
}

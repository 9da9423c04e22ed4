package hook

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"runtime"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/replay"
)

// errExplained is what a pool answers whose statements are explained.
var errExplained = errors.New("hook: nothing is sent while statements are explained: no transaction, and no use of the pool past GORM")

// explaining is one call of Explain.
type explaining struct {
	hub *Hub
	see func(r *Record)
}

type explainingKey struct{}

// Explain calls run with a session of db in which each statement is built as
// always and then, in the place of being sent, handed to see as the record that it
// would have been: classified and analysed, before any stage. Every statement finds
// no rows and succeeds, so that run goes on. Nothing of run reaches a server, and no
// stage is asked; what is not known of the catalogue is read, as for a statement that
// is sent. The statements of Preload, for which parents are needed, are not built.
//
// see must not keep the record. It is called on the goroutine of the statement.
func (h *Hub) Explain(db *gorm.DB, run func(tx *gorm.DB) error, see func(r *Record)) error {
	if own, _ := db.Plugins[pluginName].(*Hub); own != h || db.Callback() != h.root.Callback() {
		return errors.New("hook: the *gorm.DB is not the one that the plugin serves")
	}
	x := &explaining{hub: h, see: see}
	ctx := context.WithValue(db.Statement.Context, explainingKey{}, x)
	tx := db.Session(&gorm.Session{DryRun: true, Context: ctx, Logger: logger.Discard}) // its statement is its own
	tx.Statement.ConnPool = explainPool{x, tx.Statement.ConnPool}
	return run(tx)
}

// explainingOf returns the explanation that a dry run belongs to, or nil. Sessions
// that run makes have the pool, or the context, or both.
func explainingOf(stmt *gorm.Statement) *explaining {
	if p, ok := stmt.ConnPool.(explainPool); ok {
		return p.x
	}
	x, _ := stmt.Context.Value(explainingKey{}).(*explaining)
	return x
}

// dryRun runs a terminal callback that sends nothing.
func (h *Hub) dryRun(chain Chain, fillable bool, db *gorm.DB, original func(*gorm.DB)) {
	original(db)
	stmt := db.Statement
	x := explainingOf(stmt)
	if x == nil || x.hub != h || db.Error != nil || insideAnother() {
		return
	}
	r := h.newRecord(h.stages.Load(), chain, db, stmt.ConnPool)
	r.fillable = fillable
	r.learn(stmt.Context, stmt.SQL.String(), stmt.Vars)
	x.see(r)
	if chain == Row {
		noRows(db, h)
	}
	// As after a run: a chain that is used again builds another statement.
	stmt.SQL.Reset()
	stmt.Vars = nil
}

// noRows gives the caller of Row or Rows, whom GORM would leave with nil, an empty
// result.
func noRows(db *gorm.DB, h *Hub) {
	stmt := db.Statement
	if many, _ := stmt.Settings.LoadAndDelete("rows"); many != true {
		stmt.Dest = replay.ErrorRow(sql.ErrNoRows)
		return
	}
	rows, err := h.Replay().Rows(context.Background(), empty{}) //nolint:sqlclosecheck,rowserrcheck // the caller's
	if stmt.Dest = rows; err != nil {
		_ = db.AddError(err)
	}
}

// empty is a result without rows and columns.
type empty struct{}

func (empty) Columns() []replay.Column  { return nil }
func (empty) Next([]driver.Value) error { return io.EOF }
func (empty) Close() error              { return nil }

// insideAnother reports whether the dry run is that of a subquery: GORM builds an
// argument by a run of its chain, while it builds the statement that it stands in.
func insideAnother() bool {
	var pcs [256]uintptr
	n := runtime.Callers(2, pcs[:]) // dryRun is the first
	outer := 0
	for _, pc := range pcs[:n] {
		if dryRunFrames.has(pc) {
			outer++
		}
	}
	return outer > 1
}

var dryRunFrames = frameSet{of: func(function, _ string) bool { return strings.HasSuffix(function, "/hook.(*Hub).dryRun") }}

// explainPool stands for the pool of a session whose statements are explained. It
// sends nothing, also for what does not know of dry runs.
type explainPool struct {
	x    *explaining
	orig gorm.ConnPool
}

var (
	_ gorm.ConnPool         = explainPool{}
	_ gorm.ConnPoolBeginner = explainPool{}
	_ gorm.GetDBConnector   = explainPool{}
)

func (explainPool) PrepareContext(context.Context, string) (*sql.Stmt, error) {
	return nil, errExplained
}

func (explainPool) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	return nil, errExplained
}

func (explainPool) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errExplained
}

func (explainPool) QueryRowContext(context.Context, string, ...any) *sql.Row {
	return replay.ErrorRow(errExplained)
}

func (explainPool) BeginTx(context.Context, *sql.TxOptions) (gorm.ConnPool, error) {
	return (*Tx)(nil), errExplained
}

func (explainPool) GetDBConn() (*sql.DB, error) { return nil, errExplained }
func (explainPool) Ping() error                 { return errExplained }

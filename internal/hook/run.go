package hook

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/replay"
	"github.com/gorminfra/infra/internal/sqltext"
)

// errNotPrepared stands for GORM's empty *sql.Row, whose Scan panics.
var errNotPrepared = errors.New("hook: the statement could not be prepared")

// passGates asks the gates; a refusal is the record's outcome.
func (r *Record) passGates(ctx context.Context) error {
	if r.few().outer != nil {
		return nil
	}
	for _, g := range r.stages.gates {
		if err := g.Gate(ctx, r); err != nil {
			r.Outcome, r.Node, r.Err = Refused, nil, err
			return err
		}
	}
	return nil
}

// admit runs the stages before the statement's own run: gate, and the start of
// an autocommit transaction.
func (r *Record) admit(ctx context.Context, text string, args []any) error {
	r.reach(ctx, text, args)
	if !r.Chain.writes() {
		if err := r.passGates(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Next goes on to a database: charge, route, run. It is for the Server, and for
// a Fork; it may be called once.
func (r *Record) Next(ctx context.Context) (*sql.Rows, error) {
	if err := r.charge(ctx); err != nil {
		return nil, err
	}
	if err := r.beforeWrite(ctx); err != nil {
		return nil, err
	}
	rows, err := r.live(ctx)
	if err == nil && r.answers() {
		return r.answerRows(ctx, rows)
	}
	return rows, err
}

// live runs the statement for rows.
func (r *Record) live(ctx context.Context) (*sql.Rows, error) {
	return attempts(ctx, r, func(ctx context.Context, pool gorm.ConnPool, text string) (*sql.Rows, error) {
		return pool.QueryContext(r.watchRows(ctx), text, r.Args...) //nolint:sqlclosecheck,rowserrcheck // the caller's
	})
}

func (r *Record) charge(ctx context.Context) error {
	if r.Chain.writes() || r.Chain == Raw || r.charged || r.few().outer != nil {
		return nil
	}
	for _, c := range r.stages.chargers {
		if err := c.Charge(ctx, r); err != nil {
			r.Outcome, r.Node, r.Err = Refused, nil, err
			return err
		}
	}
	r.charged = true
	return nil
}

// beforeWrite notes a write in its transaction, or begins the transaction that
// an autocommit write is.
func (r *Record) beforeWrite(ctx context.Context) error {
	if r.Where == InTxn {
		return r.writeInTxn(ctx)
	}
	r.byHand()
	if r.Access != Write {
		return nil
	}
	if len(r.stages.txns) == 0 || r.comesBack() {
		return nil
	}
	t := &Txn{Context: ctx, Node: r.Node, Autocommit: true, Foreign: r.Where == Foreign, Pinned: r.Where == Pinned, Held: r.Held(), stages: r.stages}
	t.Over = r.overOf()
	t.note(ctx, r.Text, r.Args, r.Scope)
	if err := t.beforeCommit(ctx); err != nil {
		t.end(RolledBack)
		return err
	}
	r.Txn = t
	return nil
}

func (r *Record) query(ctx context.Context, text string, args []any) (*sql.Rows, error) {
	if err := r.admit(ctx, text, args); err != nil {
		return nil, err
	}
	if r.servable() {
		return r.stages.server.Serve(ctx, r)
	}
	return r.Next(ctx)
}

func (r *Record) servable() bool {
	return r.Unserved() == Servable && r.stages.server.Serves(r)
}

func (r *Record) queryRow(ctx context.Context, text string, args []any) *sql.Row {
	if err := r.admit(ctx, text, args); err != nil {
		return replay.ErrorRow(err)
	}
	if r.servable() {
		rows, err := r.stages.server.Serve(ctx, r)
		if err != nil {
			return replay.ErrorRow(err)
		}
		return r.asRow(ctx, rows)
	}
	if err := r.charge(ctx); err != nil {
		return replay.ErrorRow(err)
	}
	if err := r.beforeWrite(ctx); err != nil {
		return replay.ErrorRow(err)
	}
	if r.answers() {
		rows, err := r.live(ctx)
		if err != nil {
			return replay.ErrorRow(err)
		}
		return r.answerRow(ctx, rows)
	}
	row, err := attempts(ctx, r, func(ctx context.Context, pool gorm.ConnPool, text string) (*sql.Row, error) {
		if err := prepareFirst(ctx, pool, text); err != nil {
			return nil, err
		}
		row := pool.QueryRowContext(r.watchRows(ctx), text, r.Args...)
		if *row == (sql.Row{}) {
			return nil, errNotPrepared
		}
		return row, row.Err()
	})
	if row == nil {
		return replay.ErrorRow(err)
	}
	return row
}

func (r *Record) exec(ctx context.Context, text string, args []any) (sql.Result, error) {
	if err := r.admit(ctx, text, args); err != nil {
		return nil, err
	}
	if r.Chain == Direct {
		if err := r.charge(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.beforeWrite(ctx); err != nil {
		return nil, err
	}
	return attempts(ctx, r, func(ctx context.Context, pool gorm.ConnPool, text string) (sql.Result, error) {
		res, err := pool.ExecContext(ctx, text, r.Args...)
		if err == nil && r.Text.Operation == sqltext.DDL {
			r.stages.hub.afterDDL()
			if r.Where == InTxn {
				r.Txn.tx.ddl.Add(1)
			}
		}
		return res, err
	})
}

// attempts runs the statement on its pool: one attempt, or, when it is routed,
// a second one on another node or with a fresh plan.
func attempts[T any](ctx context.Context, r *Record, run func(context.Context, gorm.ConnPool, string) (T, error)) (T, error) {
	res, err := try(ctx, r, run)
	if err != nil || r.rare != nil {
		r.setRare().runErr = err
	}
	if r.Txn != nil && r.Txn.Autocommit && !r.Txn.Foreign && err != ctx.Err() { //nolint:errorlint // the caller's own cancel is told as it is
		err = r.stages.outcomeError(autocommitOutcome(err), err)
	}
	return res, err
}

func try[T any](ctx context.Context, r *Record, run func(context.Context, gorm.ConnPool, string) (T, error)) (res T, err error) {
	r.sent = ctx.Err() == nil // database/sql sends nothing for a context that has ended
	switch r.Where {
	case Pooled:
	case InTxn:
		return inTxn(ctx, r, run)
	default:
		if r.comesBack() {
			ctx = context.WithValue(ctx, outerKey{}, r)
		}
		return run(ctx, r.target(), r.SQL)
	}
	if r.stages.router != nil {
		r.attempt = r.Waited
	}
	node, err := r.route(ctx)
	if err != nil {
		r.sent = false
		return res, err
	}
	r.startAttempt(node)
	on := func(ctx context.Context, pool gorm.ConnPool, text string) (res T, err error) {
		if pool, err = r.sendOnce(ctx, pool); err != nil {
			return res, err
		}
		return run(ctx, pool, text)
	}
	first, limited := r.budget(ctx, node)
	res, err = on(first, node.target(r.prepared), r.SQL)
	if err != nil && r.prepared && closedStatement(err) {
		// A Reset came between its look-up and its run, and nothing ran.
		res, err = on(first, node.target(true), r.SQL)
	}
	if err == nil {
		return res, nil
	}
	if stalePlan(err) {
		// The plan was made before DDL, and nothing ran. GORM would keep it for
		// ever, and pgx names statements by their text: another text makes
		// another plan.
		node.forget(r.SQL)
		r.retryOn(node, err)
		return on(ctx, node.physical, node.freshText(r.SQL))
	}
	if r.stages.router == nil {
		return res, err
	}
	if limited && first.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrBudget, err)
	}
	return again(ctx, r, res, err, func(ctx context.Context, pool gorm.ConnPool) (T, error) { return on(ctx, pool, r.SQL) })
}

func (r *Record) route(ctx context.Context) (*Node, error) {
	if r.stages.router == nil {
		return r.stages.hub.Primary(), nil
	}
	r.needFresh(ctx)
	return r.stages.router.Route(ctx, r)
}

func (r *Record) startAttempt(node *Node) {
	r.Node = node
	if r.stages.router != nil {
		r.trying = true
	}
	if r.Txn != nil && r.Txn.Autocommit {
		r.Txn.Node = node
	}
}

func (r *Record) retryOn(node *Node, err error) {
	now := Now().Sub(r.Start)
	r.endAttempt(err, now)
	r.attempt = now
	r.Retries++
	r.startAttempt(node)
}

// watchRows lets the Rows of a caller's own loop tell of their Close: it ends
// the record's time. Those of an answer tell more.
func (r *Record) watchRows(ctx context.Context) context.Context {
	if r.Chain != Row && (r.Chain != Direct || r.Access != Write) || r.answers() {
		return ctx
	}
	if r.rows != nil { // of an attempt that failed
		r.rows.drop()
	}
	r.rows = newRowsContext(ctx, func(err error) {
		r.Err = err
		r.finish(true)
	})
	return r.rows
}

// handOver leaves the record's end to the Close of the caller's Rows, if there
// are any.
func (r *Record) handOver() bool {
	return r.rows != nil && r.Err == nil && r.rows.handOver()
}

// outerKey is the context's key of the record whose statement another plugin's
// pool sends on.
type outerKey struct{}

// comesBack reports whether the statement runs through another plugin's pool
// and comes back to our own Pool, where it is routed and its write is seen.
func (r *Record) comesBack() bool { return r.Where == Foreign && r.wrapped }

// prepareFirst prepares a statement that GORM's store does not have: the store
// itself would drop the error of a query for one row.
func prepareFirst(ctx context.Context, pool gorm.ConnPool, text string) error {
	var store *gorm.PreparedStmtDB
	inTx := false
	switch p := pool.(type) {
	case *gorm.PreparedStmtDB:
		store, pool = p, p.ConnPool
	case *gorm.PreparedStmtTX:
		store, pool, inTx = p.PreparedStmtDB, p.Tx, true
	default:
		return nil
	}
	store.Mux.Lock()
	if s, ok := store.Stmts.Get(text); ok && (inTx || !s.Transaction) {
		store.Mux.Unlock()
		return s.Error()
	}
	_, err := store.Stmts.New(ctx, text, inTx, pool, store.Mux) // unlocks
	return err
}

// closedStatement recognises database/sql's error for a prepared statement
// that was closed before it was sent.
func closedStatement(err error) bool { return err.Error() == "sql: statement is closed" }

// stalePlan recognises Postgres' "cached plan must not change result type".
func stalePlan(err error) bool {
	return err != nil && sqlState(err) == "0A000" && strings.Contains(err.Error(), "cached plan")
}

// sqlState returns the five characters of a server's error, or "".
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

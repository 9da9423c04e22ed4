package hook

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/replay"
	"github.com/gorminfra/infra/internal/sqltext"
)

// passGates asks the gates; a refusal is the record's outcome.
func (r *Record) passGates(ctx context.Context) error {
	for _, g := range r.stages.gates {
		if err := g.Gate(ctx, r); err != nil {
			r.Outcome, r.Err = Refused, err
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
	return attempts(ctx, r, func(ctx context.Context, pool gorm.ConnPool, text string) (*sql.Rows, error) {
		return pool.QueryContext(r.watchRows(ctx), text, r.Args...) //nolint:sqlclosecheck,rowserrcheck // the caller's
	})
}

func (r *Record) charge(ctx context.Context) error {
	if r.Chain.writes() || r.Chain == Raw {
		return nil
	}
	for _, c := range r.stages.chargers {
		if err := c.Charge(ctx, r); err != nil {
			r.Outcome, r.Err = Refused, err
			return err
		}
	}
	return nil
}

// beforeWrite notes a write in its transaction, or begins the transaction that
// an autocommit write is.
func (r *Record) beforeWrite(ctx context.Context) error {
	if r.Access != Write {
		return nil
	}
	if r.Where == InTxn {
		r.Txn.note(r.Text)
		return nil
	}
	if len(r.stages.txns) == 0 {
		return nil
	}
	t := &Txn{Context: ctx, Autocommit: true, Foreign: r.Where == Foreign, stages: r.stages}
	t.note(r.Text)
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
	return r.stages.server != nil && r.Where == Pooled && (r.Chain == Query || r.Chain == Row) && r.stages.server.Serves(r)
}

func (r *Record) queryRow(ctx context.Context, text string, args []any) *sql.Row {
	if err := r.admit(ctx, text, args); err != nil {
		return r.hub.Replay().ErrorRow(err)
	}
	if r.servable() {
		rows, err := r.stages.server.Serve(ctx, r)
		if err != nil {
			return r.hub.Replay().ErrorRow(err)
		}
		return r.asRow(ctx, rows)
	}
	if err := r.charge(ctx); err != nil {
		return r.hub.Replay().ErrorRow(err)
	}
	if err := r.beforeWrite(ctx); err != nil {
		return r.hub.Replay().ErrorRow(err)
	}
	row, err := attempts(ctx, r, func(ctx context.Context, pool gorm.ConnPool, text string) (*sql.Row, error) {
		ctx = r.watchRows(ctx)
		row := pool.QueryRowContext(ctx, text, r.Args...)
		if *row == (sql.Row{}) {
			// GORM's statement cache returns an empty row when it cannot
			// prepare, and Scan on that panics: ask the physical pool.
			row = unprepared(pool).QueryRowContext(ctx, text, r.Args...)
		}
		return row, row.Err()
	})
	if row == nil { // no node was found
		return r.hub.Replay().ErrorRow(err)
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
			r.hub.afterDDL()
		}
		return res, err
	})
}

// attempts runs the statement on its pool: one attempt, or, when it is routed,
// a second one on another node or with a fresh plan.
func attempts[T any](ctx context.Context, r *Record, run func(context.Context, gorm.ConnPool, string) (T, error)) (res T, err error) {
	if r.Where != Pooled {
		res, err = run(ctx, r.target(), r.SQL)
		if r.Where == InTxn && r.prepared && stalePlan(err) {
			r.Node.forget(r.SQL) // the transaction is lost, the next one is not
		}
		return res, err
	}
	node, err := r.route(ctx)
	if err != nil {
		return res, err
	}
	r.startAttempt(node)
	res, err = run(ctx, node.target(r.prepared), r.SQL)
	if err == nil {
		return res, nil
	}
	if stalePlan(err) {
		// The plan was made before DDL, and nothing ran. GORM would keep it for
		// ever, and pgx names statements by their text: another text makes
		// another plan.
		node.forget(r.SQL)
		r.retryOn(node, err)
		return run(ctx, node.physical, r.SQL+" ")
	}
	if r.stages.router == nil {
		return res, err
	}
	if again := r.stages.router.Retry(ctx, r, err); again != nil {
		r.retryOn(again, err)
		return run(ctx, again.target(r.prepared), r.SQL)
	}
	return res, err
}

func (r *Record) route(ctx context.Context) (*Node, error) {
	if r.stages.router == nil {
		return r.hub.primary, nil
	}
	return r.stages.router.Route(ctx, r)
}

func (r *Record) startAttempt(node *Node) {
	r.Node = node
	if r.stages.router != nil {
		r.routed, r.attempt = node, time.Now()
	}
	if r.Txn != nil && r.Txn.Autocommit {
		r.Txn.Node = node
	}
}

func (r *Record) retryOn(node *Node, err error) {
	r.endAttempt(err)
	r.Retries++
	r.startAttempt(node)
}

// watchRows lets the Rows of a caller's own loop tell of their Close: it ends
// the record's time, and an autocommit write that returns rows commits with it.
func (r *Record) watchRows(ctx context.Context) context.Context {
	if r.Chain != Row && (r.Chain != Direct || r.Access != Write) {
		return ctx
	}
	r.rows = newRowsContext(ctx, func() { r.finish(true) })
	return r.rows
}

func replaySource(rows *sql.Rows) (replay.Source, error) { return replay.FromRows(rows) }

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

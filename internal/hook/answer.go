package hook

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"sync"

	"github.com/gorminfra/infra/internal/replay"
)

// answer is what a write that commits by itself gives back to a caller who reads
// the rows in a loop of his own. The server may send rows before it commits, so
// each error on the way is told for what it leaves open, and the transaction ends
// with the last word of the server.
//
// The rows pass through one at a time: how many there are is not known (a SELECT
// that calls a function counts as a write), and a caller may stop at any of them.
type answer struct {
	replay.Source
	more   replay.Results
	live   *sql.Rows
	ctx    context.Context
	stages *stages

	mu      sync.Mutex // guards the rest
	outcome TxnOutcome
	err     error
}

var (
	_ replay.Source  = (*answer)(nil)
	_ replay.Results = (*answer)(nil)
)

// answers reports whether the rows are those of an answer.
func (r *Record) answers() bool {
	return (r.Chain == Row || r.Chain == Direct) && r.Access == Write && r.Txn != nil && r.Txn.Autocommit && !r.Txn.Foreign
}

// newAnswer makes one of live, and the context that its Rows have to be under.
func (r *Record) newAnswer(ctx context.Context, live *sql.Rows) (*answer, context.Context, error) {
	src, err := replay.FromRows(live)
	if err != nil { // the context has ended, and closed it
		return nil, nil, cmp.Or(ctx.Err(), err)
	}
	a := &answer{Source: src, more: src, live: live, ctx: ctx, stages: r.stages, outcome: Unknown}
	r.setRare().answer = a
	r.rows = newRowsContext(ctx, func(err error) {
		if r.Err = err; err == nil {
			r.Err = a.failure()
		}
		r.finish(true)
	})
	return a, r.rows, nil
}

// answerRows gives the caller live as Rows that tell what their errors leave open.
func (r *Record) answerRows(ctx context.Context, live *sql.Rows) (*sql.Rows, error) {
	a, under, err := r.newAnswer(ctx, live)
	if err != nil {
		return nil, err
	}
	rows, err := r.stages.hub.Replay().Rows(under, a)
	if err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	return rows, nil
}

// answerRow is answerRows for one row.
func (r *Record) answerRow(ctx context.Context, live *sql.Rows) *sql.Row {
	a, under, err := r.newAnswer(ctx, live)
	if err != nil {
		return replay.ErrorRow(err)
	}
	return r.stages.hub.Replay().Row(under, a)
}

// Next implements replay.Source.
func (a *answer) Next(dest []driver.Value) error {
	err := a.Source.Next(dest)
	switch {
	case err == nil:
	case err != io.EOF: //nolint:errorlint // database/sql compares likewise
		return a.failed(err)
	case !a.more.More():
		a.end(Committed, nil) // the driver has read up to the server's readiness for another statement
	}
	return err
}

// More implements replay.Results.
func (a *answer) More() bool { return a.more.More() }

// NextResult implements replay.Results.
func (a *answer) NextResult() error {
	err := a.more.NextResult()
	if err != nil && err != io.EOF { //nolint:errorlint // likewise
		return a.failed(err)
	}
	return err
}

// Close implements replay.Source: a driver reads what its caller has left.
func (a *answer) Close() error {
	err := a.Source.Close()
	switch {
	case err != nil:
		return a.failed(err)
	case a.live.Err() == nil: // else it was closed by the end of its context, or has told
		a.end(Committed, nil)
	}
	return nil
}

// failed notes an error of the driver and names what it leaves open.
func (a *answer) failed(err error) error {
	outcome := autocommitOutcome(err)
	if lostAnswer(err) && err != a.ctx.Err() { //nolint:errorlint // the caller's own cancel is told as it is
		err = a.stages.outcomeError(outcome, err)
	}
	a.end(outcome, err)
	return err
}

// end keeps the first word; a commit that was read to its end is never taken back.
func (a *answer) end(outcome TxnOutcome, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil && a.outcome == Unknown {
		a.outcome, a.err = outcome, err
	}
}

func (a *answer) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

func (a *answer) ended() TxnOutcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.outcome
}

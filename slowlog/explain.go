package slowlog

import (
	"context"
	"database/sql"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// job is a statement whose plan is to be asked for. It alone holds the text with
// its literals, and the parameters, until that has been done.
type job struct {
	entry   Entry
	pool    *sql.DB
	sql     string
	args    []any
	text    *sqltext.Statement
	timeout time.Duration // of the statement that asks
}

// planner asks one kind of database for the plan of j on conn.
type planner func(ctx context.Context, conn *sql.Conn, j *job, mode Mode) (*QueryPlan, error)

// plannerOf returns nil for a database whose plans are not understood.
func plannerOf(dialect string) planner {
	switch dialect {
	case "postgres":
		return explainPostgres
	case "sqlite":
		return explainSQLite
	case "mysql":
		return explainMySQL
	}
	return nil
}

const (
	// maxExplainTimeout bounds the statement that asks, minExplainTimeout lets it
	// plan at all when thresholds are low.
	maxExplainTimeout = 5 * time.Second
	minExplainTimeout = 100 * time.Millisecond
	// explainLockTimeout is the longest that DDL under way is waited for, and
	// whoever waits behind.
	explainLockTimeout = 100 * time.Millisecond
	// acquireTimeout bounds the wait for a connection, explainGrace what the
	// transaction around the statement may take.
	acquireTimeout = time.Second
	sparePoll      = 10 * time.Millisecond
	explainGrace   = 2 * time.Second
	maxExplainText = 64 << 10 // bytes
	// analyzeRest times as long as it took to run a statement none is run again.
	analyzeRest = 4
)

// jobOf returns the job for the statement when its shape's plan is due and it may
// be asked for, else nil. It runs on the statement's goroutine, since the
// parameters are the caller's again as soon as that goes on.
func (l *Log) jobOf(r *hook.Record, e Entry) *job {
	if l.planner == nil || r.Outcome != hook.Database || !worthPlan(e.Error) {
		return nil
	}
	if !l.history.claim(e.Fingerprint, l.now(), l.cfg.ExplainEvery) {
		return nil
	}
	pool := ownPool(r.Node)
	if pool == nil || r.Access != hook.ReadOnly || !certainRead(r.Text) || len(r.SQL) > maxExplainText {
		l.count.skipped.Add(1)
		return nil
	}
	args, ok := copyParams(r.Args)
	if !ok {
		l.count.skipped.Add(1)
		return nil
	}
	return &job{
		entry: e, pool: pool, sql: r.SQL, args: args, text: r.Text,
		timeout: max(min(2*e.Own(), maxExplainTimeout), l.minTimeout),
	}
}

// worthPlan reports whether a statement of this error class has a plan to show:
// it ended well, found nothing, or was given up on.
func worthPlan(class string) bool {
	switch class {
	case "", "not_found", "canceled", "timeout", "57014": // 57014: query_canceled
		return true
	}
	return false
}

type planResult uint8

const (
	planDone planResult = iota
	planDropped
	planFailed
)

// explainLoop is the goroutine that asks for plans, one at a time. After Close it
// ends when none waits.
func (l *Log) explainLoop() {
	defer close(l.explainsDone)
	for {
		select {
		case j := <-l.explains:
			start := l.now()
			l.explain(l.explainCtx, j)
			l.rest(l.now().Sub(start))
		case <-l.stop:
			for {
				select {
				case j := <-l.explains:
					l.explain(l.explainCtx, j)
				default:
					return
				}
			}
		}
	}
}

// rest pauses after an EXPLAIN ANALYZE that took d, so that slow statements of
// ever new shapes, run once more, do not add more than a fifth of one connection
// to the load. What comes meanwhile waits or is dropped.
func (l *Log) rest(d time.Duration) {
	if l.cfg.Explain != Analyze {
		return
	}
	timer := time.NewTimer(analyzeRest * d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.stop:
	}
}

func (l *Log) explain(ctx context.Context, j *job) {
	plan, result := l.planOf(ctx, j)
	switch result {
	case planDone:
		l.count.explained.Add(1)
		l.history.setPlan(j.entry.Fingerprint, plan)
		j.entry.Plan = plan
	case planDropped:
		l.count.dropped.Add(1)
		l.history.unclaim(j.entry.Fingerprint)
	case planFailed:
		l.count.failed.Add(1)
	}
	l.report(j.entry)
}

// planOf takes a connection of the node's pool and asks on it. Its statements go
// past the hooks, so it is never its own subject.
func (l *Log) planOf(ctx context.Context, j *job) (plan *QueryPlan, result planResult) {
	defer func() {
		if recover() != nil { // a driver's, or a defect of ours: no reason to end the program
			l.count.panics.Add(1)
			plan, result = nil, planFailed
		}
	}()
	acquire, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	if !spare(acquire, j.pool) {
		return nil, planDropped
	}
	conn, err := j.pool.Conn(acquire)
	if acquire.Err() != nil && err != nil {
		return nil, planDropped
	}
	if err != nil {
		return nil, planFailed
	}
	defer conn.Close() //nolint:errcheck // it goes back to its pool

	mode := l.cfg.Explain
	for {
		asking, cancel := context.WithTimeout(ctx, j.timeout+explainGrace)
		plan, err = l.planner(asking, conn, j, mode)
		cancel()
		if err == nil {
			plan.At, plan.Node = l.now(), j.entry.Node
			return plan, planDone
		}
		if mode != Analyze || sqlState(err) != "57014" {
			return nil, planFailed
		}
		mode = Plan // running it took too long: its plan alone
	}
}

package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// This file follows the primary. Which node it is follows from what the nodes say
// of themselves: a known one that is not in recovery, of the same system, on a
// higher timeline than any seen before, was promoted. A promotion always begins a
// new timeline, so of two primaries the one on the higher is the later; on the
// same timeline nobody can tell, and the present one stays.

// Failover is a change of the primary that was noticed.
type Failover struct {
	From, To string // names of nodes
	Timeline uint32 // the new one
	At       time.Time
	// Gap is the time from the last answer of the old primary as one to this
	// change; 0 when it had given none.
	Gap time.Duration
}

// elects reports whether n, which has just said that it is no standby, is the
// primary from now on. The caller holds r.mu.
func (r *Resolver) elects(n *node) bool {
	p := r.primary()
	system, timeline := n.identity.system, n.last.timeline
	if n == p || system == 0 || timeline == 0 || timeline <= r.timelineID || !slices.Contains(r.nodes(), n) {
		return false
	}
	if !p.last.placed { // the one of gorm.Open has not answered yet
		if !p.gone && p.misses < missesToBeGone {
			return false
		}
	} else if p.identity.system != system || differ(p.identity.database, n.identity.database) {
		return false
	}
	for _, m := range r.nodes() {
		if m == n || m.identity.system == 0 {
			continue
		}
		// Somebody of this system has seen a later promotion than n's; or, with no
		// primary to compare with, there are two systems or databases.
		if m.identity.system == system && m.last.timeline > timeline ||
			!p.last.placed && (m.identity.system != system || differ(m.identity.database, n.identity.database)) {
			return false
		}
	}
	return true
}

// promote makes n the primary. The caller holds r.mu.
func (r *Resolver) promote(n *node, changes []change) []change {
	old := r.primary()
	now := r.now()
	f := Failover{From: old.name, To: n.name, Timeline: n.last.timeline, At: time.Now()}
	if heard := old.heardAsPrimary; heard > 0 {
		f.Gap = time.Duration(now - heard)
	}
	r.failovers++
	r.lastFailover = f
	r.failoverTime += f.Gap
	n.health.enlist(now)
	n.rampFrom, n.misfit = 0, fits
	n.draining.Store(false) // there is no other
	n.rest.Store(0)
	n.told, n.toldMisfit = true, fits
	r.lead.Store(n)
	if r.root == r {
		r.hub.SetPrimary(n.hooked.Load())
	}
	r.superseded = append(r.superseded, old)
	return append(changes, change{n, slog.LevelWarn, "node is the primary", []any{
		"instead_of", old.name, "timeline", f.Timeline, "gap", f.Gap.Round(time.Millisecond),
	}})
}

// dropSuperseded closes the connections to nodes that were the primary: idle ones
// at once, so that nobody is given one, and those in use where we know them.
func (r *Resolver) dropSuperseded() {
	r.mu.Lock()
	old := r.superseded
	r.superseded = nil
	r.mu.Unlock()
	for _, n := range old {
		n.sockets.cut()
		r.renew(n)
	}
}

// missesToBeGone is how many probes in a row without an answer make a primary
// count as gone: with their growing patience about eight timeouts. A refusal
// makes it at once.
const missesToBeGone = 4

// turnedAway reports whether err shows that there is no server to talk to, and not
// only that it does not like this connection.
func turnedAway(f failure, err error) bool {
	var pg *pgconn.PgError
	return f == refused && (!errors.As(err, &pg) || pg.Code[:2] == "57")
}

// answers reports whether err is a server's own answer. It may not let the probe in,
// for want of a free slot or for its password, and yet be the primary that the
// connections of the pool lead to.
func answers(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && !ofPooler(pg)
}

// vacancy says why there is no primary, or "". The caller holds r.mu.
func (r *Resolver) vacancy() string {
	switch p := r.primary(); {
	case p.misfit == wrongRole:
		return p.name + " is in recovery"
	case p.gone:
		return p.name + " is gone: " + p.lastErr
	case p.misses >= missesToBeGone:
		return p.name + " does not answer: " + p.lastErr
	}
	return ""
}

// alarm makes all nodes be probed now, and often for a while, because the primary
// may have changed.
func (r *Resolver) alarm() {
	now := r.now()
	for {
		until := r.hurry.Load()
		if until-now > int64(hurryFor-hurryAgain) {
			return
		}
		if r.hurry.CompareAndSwap(until, now+int64(hurryFor)) {
			break
		}
	}
	r.wakeAll()
}

func (r *Resolver) wakeAll() {
	for _, n := range r.nodes() {
		n.wake()
	}
}

const (
	hurryFor    = 10 * time.Second      // after an alarm
	hurryAgain  = 20 * time.Millisecond // between two alarms that count
	hurryFactor = 5                     // how much shorter the interval is
	minHurry    = 5 * time.Millisecond  // between two probes
)

// awaitPrimary waits until there is a primary that has said so in answer to a
// probe which was sent after since; 0 takes the present verdict. It waits no
// longer than Config.FailoverWait and ctx allow.
func (r *Resolver) awaitPrimary(ctx context.Context, since int64) error {
	wait := max(r.cfg.FailoverWait, 0)
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	r.alarm()
	if since > 0 {
		r.wakeAll()
	}
	for {
		r.mu.Lock()
		why, next := r.vacancy(), r.probed
		if p := r.primary(); why == "" && since > 0 && p.heardAsPrimary <= since {
			why = p.name + " has not answered since"
		}
		r.mu.Unlock()
		if why == "" {
			return nil
		}
		select {
		case <-next:
		case <-timeout.C:
			return fmt.Errorf("%w: %s; waited %v for another", ErrNoPrimary, why, wait)
		case <-ctx.Done():
			return fmt.Errorf("%w: %s: %w", ErrNoPrimary, why, ctx.Err())
		case <-r.ctx.Done():
			return fmt.Errorf("%w: closed", ErrNoPrimary)
		}
	}
}

// awaitFirstAnswer waits until the primary's first probe has ended, well or not: what
// gorm.Open connected to may have become a standby since the configuration was
// written. It waits no longer than Probe.Timeout and ctx allow.
func (r *Resolver) awaitFirstAnswer(ctx context.Context) error {
	for {
		r.mu.Lock()
		p, next := r.primary(), r.probed
		answered := p.answered
		r.mu.Unlock()
		if answered {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("%w: %s has not answered yet: %w", ErrNoPrimary, p.name, ctx.Err())
		case <-r.ctx.Done():
			return nil
		}
	}
}

// BeforeCommit implements hook.TxnObserver: what was written on a node that claims
// to be a primary although another one was promoted would be lost.
func (a *router) BeforeCommit(_ context.Context, t *hook.Txn) error {
	if t.Node == nil || t.Node == a.r.hub.Primary() {
		return nil
	}
	n := a.r.nodeOf(t.Node)
	if n == nil || n.isPrimary() {
		return nil
	}
	r := n.home
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.primary(); n.last.placed && !n.last.standby && r.failovers > 0 {
		return fmt.Errorf("%w: the transaction ran on %s, and %s was promoted meanwhile; rolled back", ErrNoPrimary, n.name, p.name)
	}
	return nil
}

// heedFailure looks at what broke in a transaction, which may be the first sign of
// a failover.
func (r *Resolver) heedFailure(rec *hook.Record) {
	if rec.Err == nil || rec.Where != hook.InTxn || !r.live.Load() || len(r.replicas()) == 0 {
		return
	}
	if isReadOnly(rec.Err) || failureOf(rec.Err, false) == refused {
		r.alarm()
	}
}

// redirect finds the primary for a statement that needs it, when it failed on
// failed and err proves that nothing of it ran: the server refused it because it
// is a standby by now, or never saw it. It waits as a new statement would.
func (r *Resolver) redirect(ctx context.Context, rec *hook.Record, failed *node, f failure, err error) *node {
	readOnly := isReadOnly(err) && ranAsAWhole(rec.Text)
	if !r.live.Load() || len(r.replicas()) == 0 {
		return nil
	}
	var late error
	switch {
	case readOnly:
		late = r.awaitPrimary(ctx, r.now())
	case hook.NotSent(err):
		late = r.awaitReturn(ctx, failed, f, err)
	default:
		return nil
	}
	if late != nil {
		return nil // the caller gets the error of the first attempt
	}
	if n := r.primary(); n != failed || !readOnly {
		return n
	}
	return nil // it is the primary, and refuses writes for another reason
}

// isReadOnly recognises read_only_sql_transaction, which is what a standby says
// to a write.
func isReadOnly(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "25006"
}

// ranAsAWhole reports whether a text, when it failed, left nothing behind: one
// statement that cannot commit by parts.
func ranAsAWhole(text *sqltext.Statement) bool {
	if text == nil || text.Multiple {
		return false
	}
	switch text.Operation {
	case sqltext.Select, sqltext.Insert, sqltext.Update, sqltext.Delete, sqltext.Merge, sqltext.Truncate, sqltext.DDL, sqltext.Lock:
		return true
	}
	return false
}

// Budget implements hook.Budgeter: a replica whose last probe was not answered in
// time gets half of the time that a read has left.
func (a *router) Budget(ctx context.Context, hn *hook.Node) time.Duration {
	n := a.r.nodeOf(hn)
	if n == nil || !n.doubted.Load() || n.isPrimary() {
		return 0
	}
	end, ok := ctx.Deadline()
	if !ok {
		return 0 // its sockets are closed when it is ejected
	}
	return max(time.Until(end)/2, 1)
}

// settle decides for q, waiting for a primary where one is needed and there is
// none.
func (r *Resolver) settle(ctx context.Context, q *question) (*node, reason, error) {
	n, why := r.decide(q)
	if why == reasonSeen && q.session != nil {
		q.now = 0
		n, why = r.free(ctx, q)
	}
	if !r.vacant.Load() || !n.isPrimary() || len(r.replicas()) == 0 || q.spilled(why) && r.class(q.priority).Spill < 0 {
		return n, why, nil
	}
	q.now = 0
	err := r.awaitFirstAnswer(ctx)
	if err == nil && r.vacant.Load() {
		err = r.awaitPrimary(ctx, 0)
	}
	if err != nil {
		return n, why, fmt.Errorf("%w (%s)", err, why)
	}
	n, why = r.decide(q)
	return n, why, nil
}

// failoverStats adds what there was to s.
func (r *Resolver) failoverStats(s *Stats) {
	if !r.opened.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Failovers += r.failovers
	if r.lastFailover.At.After(s.LastFailover.At) {
		s.LastFailover = r.lastFailover
	}
	if s.NoPrimary == "" {
		s.NoPrimary = r.vacancy()
	}
}

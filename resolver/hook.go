package resolver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

var _ gorm.Plugin = (*Resolver)(nil)

// Name implements gorm.Plugin.
func (r *Resolver) Name() string { return "infra:resolver" }

// Initialize implements gorm.Plugin; db.Use calls it. It reports every fault of
// the configuration before it touches db. It does not wait for any server.
func (r *Resolver) Initialize(db *gorm.DB) error {
	if err := r.given.Validate(); err != nil {
		return err
	}
	r.mu.Lock()
	used := r.used
	r.used = true
	r.mu.Unlock()
	if used {
		return errors.New("resolver: already used on a *gorm.DB: make one Resolver for each")
	}
	r.cfg = r.given.withDefaults()
	r.expiry = int64(2*r.cfg.Probe.Interval + r.cfg.Probe.Timeout)
	r.tightest = 2 * r.cfg.Probe.Interval
	r.rotation.Store(&rotation{})
	if r.cfg.Disabled {
		return nil
	}
	h, err := hook.Attach(db)
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	if !h.Routed() {
		return nil // GORM was opened over a transaction, which is all there is
	}
	r.hub = h
	if err := r.makeNodes(); err != nil {
		return errors.Join(err, r.closeNodes())
	}
	if r.unregister, err = h.Register(&router{r}); err != nil {
		return errors.Join(fmt.Errorf("resolver: %w", err), r.closeNodes())
	}
	if pool := r.primary.db.Load(); pool != nil {
		r.applyPool(r.primary, pool)
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.opened.Store(true)
	r.live.Store(true)
	if len(r.replicas) > 0 {
		r.watching.Do(func() { r.start(r.primary) })
	}
	for _, n := range r.replicas {
		r.start(n)
	}
	for _, n := range r.nodes {
		r.keep(n)
	}
	return nil
}

// router is what the hook layer sees of a Resolver.
type router struct{ r *Resolver }

var (
	_ hook.Router        = (*router)(nil)
	_ hook.TxRetrier     = (*router)(nil)
	_ hook.OutcomeTeller = (*router)(nil)
	_ hook.TxnObserver   = (*router)(nil)
	_ hook.Positioner    = (*router)(nil)
	_ hook.Meter         = (*router)(nil)
)

// Route implements hook.Router.
func (a *router) Route(ctx context.Context, rec *hook.Record) (*hook.Node, error) {
	r := a.r
	q, err := r.questionOf(ctx, rec)
	if err != nil {
		return nil, err
	}
	n, why := r.decide(&q)
	if err := r.refuse(ctx, n, why); err != nil {
		return nil, err
	}
	return r.send(rec, n, why), nil
}

// send counts the decision.
func (r *Resolver) send(rec *hook.Record, n *node, why reason) *hook.Node {
	rec.Reason = why.String()
	n.decisions[why].Add(1)
	n.inFlight.Add(1)
	return n.hooked.Load()
}

// refuse says what must not be sent to the primary.
func (r *Resolver) refuse(ctx context.Context, n *node, why reason) error {
	if !n.primary || len(r.replicas) == 0 {
		return nil
	}
	if r.demoted.Load() {
		return fmt.Errorf("%w: what gorm.Open connected to is in recovery", ErrNoPrimary)
	}
	switch why {
	case reasonOwnWrite, reasonLag, reasonPosition, reasonCacheFill, reasonDown:
		if optionsOf(ctx).priority == Background && r.primaryBusy() {
			return fmt.Errorf("%w (%s)", ErrBusy, why)
		}
	}
	return nil
}

// primaryBusy reports whether half of the primary's connections are in use.
func (r *Resolver) primaryBusy() bool {
	db := r.primary.db.Load()
	if db == nil {
		return false
	}
	st := db.Stats()
	return st.MaxOpenConnections > 0 && 2*st.InUse >= st.MaxOpenConnections
}

// questionOf reads a statement outside transactions.
func (r *Resolver) questionOf(ctx context.Context, rec *hook.Record) (question, error) {
	hint, o := rec.Hint(), optionsOf(ctx)
	q := question{minLSN: rec.MinLSN, fill: rec.MinLSN > 0}
	if err := r.named(&q, hint); err != nil {
		return q, err
	}
	switch {
	case rec.Access != hook.ReadOnly && !(hint.Read && mayTry(rec.Text)):
		q.toPrimary, q.why = true, reasonWrite
		if rec.Access == hook.NeedsPrimary {
			q.why = reasonPrimaryOnly
		}
	case hint.Write:
		q.toPrimary, q.why = true, reasonAsked
	default:
		r.ask(&q, o, hint, rec.Scope)
		if p := rec.Parent; p != nil && p.Node != nil && q.favourite == nil {
			q.favourite, q.favour = r.nodeOf(p.Node), reasonPreload
		}
		if rec.NeedPrimary && !q.toPrimary {
			q.toPrimary, q.why = true, reasonCacheFill
		}
	}
	return q, nil
}

// mayTry reports whether dbresolver.Read sends a statement to a replica although
// what it calls is not known to be harmless: its user vouches for functions, and
// a standby refuses the rest. It would not refuse a lock.
func mayTry(text *sqltext.Statement) bool {
	return text != nil && text.Operation == sqltext.Select && len(text.Writes) == 0 && !text.Locking && !text.Multiple
}

// named takes in dbresolver.Use.
func (r *Resolver) named(q *question, hint hook.Hint) error {
	if hint.Use == "" {
		return nil
	}
	for _, n := range r.nodes {
		if n.name == hint.Use {
			q.favourite, q.favour, q.insist = n, reasonNamed, true
			return nil
		}
	}
	names := make([]string, len(r.nodes))
	for i, n := range r.nodes {
		names[i] = n.name
	}
	return fmt.Errorf("%w: %q: there are %s", ErrUnknownNode, hint.Use, strings.Join(names, ", "))
}

// ask takes in what the context says of a read. A clause on the query, which is
// nearer, wins over Primary and Critical.
func (r *Resolver) ask(q *question, o *options, hint hook.Hint, s *scope.Scope) {
	if (o.primary || o.priority == Critical) && !hint.Read && q.favourite == nil {
		q.toPrimary, q.why = true, reasonAsked
		return
	}
	q.bound = r.cfg.MaxLag
	if o.bounded {
		q.bound, q.strict = o.bound, true
	}
	session := r.sessionOf(s, false)
	q.wrote, q.scoped = session.floor(), s != nil
	if o.conn != nil && q.favourite == nil {
		q.favourite, q.favour = o.conn.node.Load(), reasonHandle
	}
}

// Begin implements hook.TxnObserver.
func (a *router) Begin(*hook.Txn) {}

// BeforeCommit implements hook.TxnObserver.
func (a *router) BeforeCommit(context.Context, *hook.Txn) error { return nil }

// Ended implements hook.TxnObserver: the session must see what was committed, or
// may have been.
func (a *router) Ended(t *hook.Txn, outcome hook.TxnOutcome) {
	if outcome == hook.RolledBack || !t.Wrote() {
		return
	}
	now := a.r.now()
	a.r.process.note(now)
	if s := scope.From(t.Context); s != nil {
		a.r.sessionOf(s, true).note(now)
	}
}

// PositionAfter implements hook.Positioner.
func (a *router) PositionAfter(ctx context.Context, t time.Time) (uint64, error) {
	return a.r.positionAfter(ctx, t)
}

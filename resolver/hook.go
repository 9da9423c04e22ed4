package resolver

import (
	"context"
	"errors"
	"fmt"
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
	if err := errors.Join(append(r.faults, r.given.Validate())...); err != nil {
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
	home := Node{Name: primaryName}
	if src := r.cfg.Source; src != nil && (src.given() || sameDSN(src.Dialector, h.DB().Dialector)) {
		home, r.cfg.Source = Node{Name: src.Name, Zone: src.Zone, Weight: src.Weight}, nil
	}
	if err := r.makeGroups(); err != nil {
		return err
	}
	if err := r.makeNodes(home); err != nil {
		return errors.Join(err, r.closeAll())
	}
	if r.primary().given {
		if pool := r.primary().db.Load(); pool != nil {
			r.applyPool(r.primary(), pool)
		}
		r.called(r.hub.Home().Pool())
	}
	if len(r.faults) > 0 {
		return errors.Join(append(r.faults, r.closeAll())...)
	}
	for _, home := range r.homes() {
		home.mu.Lock()
		home.rebuild()
		home.vacant.Store(len(home.replicas()) > 0) // until the primary has been asked
		home.mu.Unlock()
		home.ctx, home.cancel = context.WithCancel(context.Background()) //nolint:fatcontext // one for each home
		home.opened.Store(true)
		home.live.Store(true)
	}
	if r.unregister, err = h.Register(&router{r}); err != nil {
		return errors.Join(fmt.Errorf("resolver: %w", err), r.closeAll())
	}
	h.Declare(r.declared())
	if r.cfg.Trace {
		trace(h.DB())
		trace(db)
	}
	for _, home := range r.homes() {
		home.startAll()
	}
	r.reread()
	if tight := r.cfg.tightBounds(r.tightest); len(tight) > 0 && len(r.replicas())+len(r.groups.far) > 0 {
		r.cfg.Logger.Warn("resolver: a bound is below two probe intervals, so that its reads all go to the primary: shorten Probe.Interval",
			"db", r.cfg.Name, "fields", tight, "interval", r.cfg.Probe.Interval)
	}
	return nil
}

// startAll starts the goroutines of the nodes.
func (r *Resolver) startAll() {
	if r.remembers() || r.primary().hooked.Load() == nil {
		r.watching.Do(func() { r.start(r.primary()) })
	}
	for _, n := range r.replicas() {
		r.start(n)
	}
	for _, n := range r.nodes() {
		r.keep(n)
	}
}

// declared is what the configuration says of functions, as the hook layer takes
// it: whether they may run on a replica.
func (r *Resolver) declared() map[string]bool {
	m := make(map[string]bool, len(r.cfg.Functions))
	for name, v := range r.cfg.Functions {
		m[name] = v == ReadOnly
	}
	return m
}

// router is what the hook layer sees of a Resolver.
type router struct{ r *Resolver }

var (
	_ hook.Router        = (*router)(nil)
	_ hook.TxRetrier     = (*router)(nil)
	_ hook.OutcomeTeller = (*router)(nil)
	_ hook.TxnObserver   = (*router)(nil)
	_ hook.WriteObserver = (*router)(nil)
	_ hook.Positioner    = (*router)(nil)
	_ hook.Begun         = (*router)(nil)
	_ hook.Placer        = (*router)(nil)
	_ hook.Observer      = (*router)(nil)
	_ hook.Meter         = (*router)(nil)
	_ hook.Budgeter      = (*router)(nil)
	_ hook.Binder        = (*router)(nil)
)

// Route implements hook.Router.
func (a *router) Route(ctx context.Context, rec *hook.Record) (*hook.Node, error) {
	hint := rec.Hint()
	p, err := a.r.belongs(rec, hint)
	if err != nil {
		return nil, err
	}
	q := p.r.questionOf(ctx, rec, hint, &p, int64(rec.Asked()))
	return p.r.admit(ctx, rec, &q)
}

// send counts the decision for a statement that has been let in.
func (r *Resolver) send(rec *hook.Record, n *node, why reason) *hook.Node {
	rec.Reason = why.String()
	n.decisions[why].Add(1)
	return n.hooked.Load()
}

// refuse says what must not be sent to the primary.
func (r *Resolver) refuse(n *node) error {
	if !n.isPrimary() {
		return nil
	}
	if n.hooked.Load() == nil {
		return fmt.Errorf("%w: %s could not be opened yet", ErrNoPrimary, n.name)
	}
	if r.vacant.Load() && len(r.replicas()) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		if why := r.vacancy(); why != "" {
			return fmt.Errorf("%w: %s", ErrNoPrimary, why)
		}
	}
	return nil
}

// Bound implements hook.Binder: Primary, Critical and MaxStaleness are promises
// that a cached result does not keep; nor does it that of a token that has just
// come to work without a scope.
func (a *router) Bound(rec *hook.Record) bool {
	o := optionsOf(rec.Context)
	return o.primary || o.priority == Critical || o.bounded && o.bound != AnyStaleness || o.sessions != nil && o.sessions.young(a.r.now())
}

// questionOf reads a statement outside transactions that belongs to p, a place
// of r, asked at now; 0: at this moment.
func (r *Resolver) questionOf(ctx context.Context, rec *hook.Record, hint hook.Hint, p *place, now int64) question {
	o := optionsOf(ctx)
	q := question{now: now, minLSN: rec.MinLSN(), fill: rec.MinLSN() > 0, group: p.g}
	switch {
	case rec.Access != hook.ReadOnly && !(hint.Read && mayTry(rec.Text)):
		q.priority = Critical
		q.toPrimary, q.why = true, reasonWrite
		if rec.Access == hook.NeedsPrimary {
			q.why = reasonPrimaryOnly
		}
	case hint.Write:
		q.priority = o.priority
		q.toPrimary, q.why = true, reasonAsked
	default:
		r.ask(&q, o, hint, rec.Scope, p)
		if parent := rec.Parent; parent != nil && parent.Node != nil && q.favourite == nil {
			if n := r.nodeOf(parent.Node); n != nil && n.home == r {
				q.favourite, q.favour = n, reasonPreload
			}
		}
		q.seen = max(q.seen, r.shownAbove(rec))
		switch {
		case q.toPrimary:
		case rec.NeedPrimary, rec.MinLSN() > 0 && r.root != r: // positions are those of the root's database
			q.toPrimary, q.why = true, reasonCacheFill
		case !r.knows(rec.Text):
			q.toPrimary, q.why = true, reasonWrite
		}
	}
	return q
}

// shownAbove is the time that a preload's node must be younger than: what it
// completes may have come from a cache, and what belongs to that must be there
// too. 0: none of it did.
func (r *Resolver) shownAbove(rec *hook.Record) (at int64) {
	for p := rec.Parent; p != nil; p = p.Parent {
		if p.Node != nil || p.Outcome != hook.L1 && p.Outcome != hook.L2 && p.Outcome != hook.Shared {
			continue
		}
		now := r.now()
		if p.Shown != 0 {
			now = min(now, int64(p.Shown))
		}
		at = max(at, now)
	}
	return at
}

// knows reports whether what is known of a statement's functions holds for the
// database of r. They are looked up in the root's.
func (r *Resolver) knows(text *sqltext.Statement) bool {
	if r.root == r {
		return true
	}
	for _, f := range text.UnknownFunctions {
		if r.cfg.Functions[f] != ReadOnly {
			return false
		}
	}
	return true
}

// mayTry reports whether dbresolver.Read sends a statement to a replica although
// what it calls is not known to be harmless: its user vouches for functions, and
// a standby refuses the rest. It would not refuse a lock.
func mayTry(text *sqltext.Statement) bool {
	return text != nil && text.Operation == sqltext.Select && len(text.Writes) == 0 && !text.Locking && !text.Multiple
}

// ask takes in what the context says of a read. A clause on the query, which is
// nearer, wins over Primary and Critical.
func (r *Resolver) ask(q *question, o *options, hint hook.Hint, s *scope.Scope, p *place) {
	q.priority = o.priority
	if p.node != nil {
		q.favourite, q.favour, q.insist = p.node, reasonNamed, true
	}
	class := r.class(o.priority)
	if (o.primary || o.priority == Critical && class.MaxLag == 0 || p.onPrimary) && !hint.Read && q.favourite == nil {
		q.toPrimary, q.why = true, reasonAsked
		return
	}
	q.bound = r.cfg.MaxLag
	if g := p.g; g != nil && g.maxLag > 0 {
		q.bound = g.maxLag
		if class.MaxLag > 0 {
			q.bound = min(q.bound, class.MaxLag)
		}
	} else if class.MaxLag > 0 {
		q.bound = class.MaxLag
	}
	if p.bound > 0 {
		q.bound = min(q.bound, p.bound)
	}
	if o.bounded {
		q.bound, q.strict = o.bound, true
	}
	r.heed(q, r.sessionOf(o, s, r.remembers()))
	if o.conn != nil && q.favourite == nil {
		if n := o.conn.node.Load(); n != nil && n.home == r {
			q.favourite, q.favour = n, reasonHandle
		}
	}
}

// PositionAfter implements hook.Positioner.
func (a *router) PositionAfter(ctx context.Context, t time.Time) (uint64, error) {
	return a.r.positionAfter(ctx, t)
}

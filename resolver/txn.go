package resolver

import (
	"context"
	"database/sql"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
)

// RouteTx implements hook.Router: a transaction stays on the node that it begins
// on.
func (a *router) RouteTx(ctx context.Context, opts *sql.TxOptions, hint hook.Hint) (*hook.Node, error) {
	n, why, err := a.r.beginOn(ctx, opts, hint, nil)
	if err != nil {
		return nil, err
	}
	n.decisions[why].Add(1)
	return n.hooked.Load(), nil
}

// Begun implements hook.Begun.
func (a *router) Begun(hn *hook.Node) {
	if n := a.r.nodeOf(hn); n != nil {
		n.begins.Add(-1)
	}
}

// Places implements hook.Placer.
func (a *router) Places() bool { return len(a.r.groups.byTable) > 0 }

// Place implements hook.Placer.
func (a *router) Place(hint hook.Hint) *hook.Node {
	p, err := a.r.belongsTx(hint)
	if err != nil {
		return nil
	}
	hint.Read = hint.Read || hint.Use != "" && !hint.Write
	n, _, err := p.r.placeOf(context.Background(), nil, hint, nil, &p)
	if err != nil {
		return nil
	}
	return n.hooked.Load()
}

// RetryTx implements hook.TxRetrier.
func (a *router) RetryTx(ctx context.Context, hn *hook.Node, opts *sql.TxOptions, hint hook.Hint, cause error) *hook.Node {
	failed := a.r.nodeOf(hn)
	if failed == nil {
		return nil
	}
	r := failed.home
	f := failureOf(cause, true)
	if over(ctx) {
		f = noFailure
	}
	r.blame(failed, f, cause)
	if f == noFailure && r.live.Load() {
		return nil
	}
	n, _, err := a.r.beginOn(ctx, opts, hint, failed)
	if err != nil {
		return nil
	}
	if n == failed {
		n.begins.Add(-1)
		if r.awaitReturn(ctx, failed, f, cause) != nil {
			return nil
		}
		n = r.primary()
		n.begins.Add(1)
	}
	n.decisions[reasonRetry].Add(1)
	return n.hooked.Load()
}

// beginOn decides where a transaction begins and counts the attempt there, until
// Begun.
func (r *Resolver) beginOn(ctx context.Context, opts *sql.TxOptions, hint hook.Hint, failed *node) (*node, reason, error) {
	p, err := r.belongsTx(hint)
	if err != nil {
		return nil, 0, err
	}
	for {
		n, why, err := p.r.placeOf(ctx, opts, hint, failed, &p)
		if err != nil {
			return nil, 0, err
		}
		n.begins.Add(1)
		if !n.drained() {
			return n, why, nil
		}
		n.begins.Add(-1) // the next decision knows
	}
}

// placeOf decides where a transaction that belongs to p begins.
func (r *Resolver) placeOf(ctx context.Context, opts *sql.TxOptions, hint hook.Hint, failed *node, p *place) (*node, reason, error) {
	q := question{exclude: failed, group: p.g}
	readOnly := opts != nil && opts.ReadOnly || hint.Read
	switch {
	case hint.Write:
		q.toPrimary, q.why = true, reasonAsked
	case !readOnly, opts != nil && opts.Isolation >= sql.LevelSerializable: // a standby refuses the latter
		q.toPrimary, q.why = true, reasonTransaction
	case !r.live.Load():
		q.toPrimary, q.why = true, reasonTransaction
	default:
		r.ask(&q, optionsOf(ctx), hint, openScope(ctx), p)
	}
	if q.favourite != nil && q.favourite == failed {
		q.favourite = nil
	}
	n, why, err := r.settle(ctx, &q)
	if err != nil {
		return nil, why, err
	}
	return n, why, r.refuse(n)
}

// openScope is the scope of ctx that has not ended, or nil.
func openScope(ctx context.Context) *scope.Scope {
	if s := scope.From(ctx); s != nil && !s.Ended() {
		return s
	}
	return nil
}

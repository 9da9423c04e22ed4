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
	n, why, err := a.r.placeOf(ctx, opts, hint, nil)
	if err != nil {
		return nil, err
	}
	n.decisions[why].Add(1)
	return n.hooked.Load(), nil
}

// RetryTx implements hook.TxRetrier.
func (a *router) RetryTx(ctx context.Context, hn *hook.Node, opts *sql.TxOptions, hint hook.Hint, err error) *hook.Node {
	r := a.r
	failed := r.nodeOf(hn)
	if failed == nil {
		return nil
	}
	f := failureOf(err, true)
	if ctx.Err() != nil {
		f = noFailure
	}
	r.blame(failed, f, err)
	if failed.isPrimary() || f == noFailure && r.live.Load() {
		return nil
	}
	n, _, err := r.placeOf(ctx, opts, hint, failed)
	if err != nil || n == failed {
		return nil
	}
	n.decisions[reasonRetry].Add(1)
	return n.hooked.Load()
}

// placeOf decides where a transaction begins.
func (r *Resolver) placeOf(ctx context.Context, opts *sql.TxOptions, hint hook.Hint, failed *node) (*node, reason, error) {
	q := question{exclude: failed}
	if err := r.named(&q, hint); err != nil {
		return nil, 0, err
	}
	readOnly := opts != nil && opts.ReadOnly || hint.Read
	switch {
	case hint.Write:
		q.toPrimary, q.why = true, reasonAsked
	case !readOnly, opts != nil && opts.Isolation >= sql.LevelSerializable: // a standby refuses the latter
		q.toPrimary, q.why = true, reasonTransaction
	case !r.live.Load():
		q.toPrimary, q.why = true, reasonTransaction
	default:
		r.ask(&q, optionsOf(ctx), hint, openScope(ctx))
	}
	if q.favourite != nil && q.favourite == failed {
		q.favourite = nil
	}
	n, why := r.decide(&q)
	return n, why, r.refuse(ctx, n, why)
}

// openScope is the scope of ctx that has not ended, or nil.
func openScope(ctx context.Context) *scope.Scope {
	if s := scope.From(ctx); s != nil && !s.Ended() {
		return s
	}
	return nil
}

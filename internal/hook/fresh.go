package hook

import "context"

// fresh is what statements under a context need of the node that they read from,
// because a cache keeps what is made of them.
type fresh struct {
	primary bool
	minLSN  uint64
}

type freshKey struct{}

// WithFresh returns a context whose reads go to a node that has replayed up to
// minLSN, or to the primary: those of a program's own function whose result a
// [Server] keeps.
func WithFresh(ctx context.Context, primary bool, minLSN uint64) context.Context {
	if !primary && minLSN == 0 {
		return ctx
	}
	return context.WithValue(ctx, freshKey{}, fresh{primary, minLSN})
}

// needFresh notes what the context asks for. Without a Server nobody does.
func (r *Record) needFresh(ctx context.Context) {
	if r.stages.server == nil || r.Access != ReadOnly {
		return
	}
	if f, ok := ctx.Value(freshKey{}).(fresh); ok {
		r.NeedPrimary = r.NeedPrimary || f.primary
		r.NeedLSN(max(r.MinLSN(), f.minLSN))
	}
}

// freshTx has a transaction under such a context begin on the primary: no position
// can be asked for.
func (st *stages) freshTx(ctx context.Context, hint Hint) Hint {
	if st.server != nil && ctx.Value(freshKey{}) != nil {
		hint.Write = true
	}
	return hint
}

package hook

import (
	"context"
	"errors"
	"time"
)

// Budgeter is an optional ability of a Router.
type Budgeter interface {
	// Budget returns how long the first attempt of a read on node may take, so
	// that time is left for a second; 0: as long as ctx lets it. It is called for
	// each read of GORM's Query chain, and must be cheap.
	Budget(ctx context.Context, node *Node) time.Duration
}

// ErrBudget is wrapped by the error of an attempt that its budget ended.
var ErrBudget = errors.New("hook: the attempt's share of the time is used up")

// budget is the context of the first attempt. Only GORM's own loop over the rows
// ends before the record does: the Rows of a caller would be closed under him.
func (r *Record) budget(ctx context.Context, node *Node) (_ context.Context, limited bool) {
	if r.stages.budgeter == nil || r.Chain != Query || r.Access != ReadOnly {
		return ctx, false
	}
	d := r.stages.budgeter.Budget(ctx, node)
	if d <= 0 {
		return ctx, false
	}
	ctx, r.setRare().cancel = context.WithTimeout(ctx, d) //nolint:govet // finish cancels it
	return ctx, true
}

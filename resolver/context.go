package resolver

import (
	"context"
	"fmt"
	"time"
)

// options are what a context says about routing. A context carries one value of
// them, so that a statement looks only once.
type options struct {
	primary  bool
	priority Priority
	bound    time.Duration
	bounded  bool
	conn     *Conn     // the handle that the statement comes from
	sessions *sessions // that a token began
}

type optionsKey struct{}

var noOptions options

func optionsOf(ctx context.Context) *options {
	if o, ok := ctx.Value(optionsKey{}).(*options); ok {
		return o
	}
	return &noOptions
}

func with(ctx context.Context, change func(*options)) context.Context {
	o := *optionsOf(ctx)
	change(&o)
	return context.WithValue(ctx, optionsKey{}, &o)
}

// Primary sends the reads of ctx to the primary.
func Primary(ctx context.Context) context.Context {
	return with(ctx, func(o *options) { o.primary = true })
}

// MaxStaleness lets reads of ctx be at most d behind the primary, in place of
// Config.MaxLag. A bound below two probe intervals means the primary;
// [AnyStaleness] means none.
func MaxStaleness(ctx context.Context, d time.Duration) context.Context {
	return with(ctx, func(o *options) { o.bound, o.bounded = d, true })
}

// Priority says how much a statement matters to whoever waits for it.
type Priority uint8

const (
	// Normal reads go to a replica that is fit, and, so many at once as the
	// primary can bear, to the primary when none is.
	Normal Priority = iota
	// Critical reads go to the primary, or to a replica within a tight bound, and
	// find connections when the others' are used up.
	Critical
	// Background reads go to replicas alone. When none is fit they wait for a
	// moment and fail with [ErrNoReplica], and they leave half of each node's
	// connections to the others. Without replicas they go to the primary.
	Background
	numPriorities
)

func (p Priority) String() string {
	switch p {
	case Normal:
		return "normal"
	case Critical:
		return "critical"
	case Background:
		return "background"
	}
	return fmt.Sprintf("Priority(%d)", uint8(p))
}

// WithPriority gives the reads of ctx a priority. Writes and transactions have
// none. A value that is not one of the three counts as Normal.
func WithPriority(ctx context.Context, p Priority) context.Context {
	if p >= numPriorities {
		p = Normal
	}
	return with(ctx, func(o *options) { o.priority = p })
}

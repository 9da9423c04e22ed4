package resolver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// position is a place in the WAL of one history.
type position struct {
	lineage
	lsn uint64
}

// positionAfter implements hook.Positioner with the shared sample, forcing one if
// the last was sent before t.
func (r *Resolver) positionAfter(ctx context.Context, t time.Time) (uint64, error) {
	p, err := r.sampleAfter(ctx, int64(hook.MomentOf(t)), r.cfg.Probe.Interval)
	return p.lsn, err
}

// forcedEvery is the least time between two samples that are taken because
// somebody waits: all who come meanwhile share the next one, and the primary is
// asked 500 times a second at most.
const forcedEvery = 2 * time.Millisecond

// sampleAfter returns a sample of the primary that was sent after the time after:
// every commit that had returned by then lies at or below it. It asks for one
// that many may share, and waits for patience at most.
func (r *Resolver) sampleAfter(ctx context.Context, after int64, patience time.Duration) (position, error) {
	if !r.live.Load() {
		return position{}, errors.New("resolver: no WAL position: closed")
	}
	if !r.hasLSN() {
		return position{}, errors.New("resolver: no WAL position: the database has none")
	}
	r.watching.Do(func() { r.start(r.primary()) })
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		p, sent, next := r.lastSample()
		if sent > after {
			return p, nil
		}
		var rested <-chan time.Time
		if pause := time.Duration(sent-r.now()) + forcedEvery; sent > 0 && pause > 0 {
			rested = time.After(pause)
		} else {
			r.primary().wake()
		}
		select {
		case <-rested:
		case <-next:
		case <-timeout.C:
			return position{}, fmt.Errorf("resolver: no WAL position: the primary did not answer within %v", patience)
		case <-ctx.Done():
			return position{}, fmt.Errorf("resolver: no WAL position: %w", ctx.Err())
		case <-r.ctx.Done():
			return position{}, errors.New("resolver: no WAL position: closed")
		}
	}
}

// lastSample returns the newest sample, when it was sent (0: there is none), and
// what is closed when a probe has ended.
func (r *Resolver) lastSample() (p position, sent int64, next <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.line.last(); ok {
		sent, p.lsn = s.sent, s.lsn
		if here := r.lineage.Load(); here != nil {
			p.lineage = *here
		}
	}
	return p, sent, r.probed
}

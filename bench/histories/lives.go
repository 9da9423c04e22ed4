package main

import (
	"context"
	"fmt"
	"time"
)

// killWorker ends a worker at its work by kill -9, and lets a new process take its
// place. What it had logged was acknowledged, and what was under way may have
// happened or not. Sessions that it had handed over by a token, one of them just
// now, go on in others, which know of its writes by that token alone.
func killWorker(ctx context.Context, p *parent) error {
	w := p.workers[0]
	if len(p.happened["kill-worker"])%4 != 3 { // the process without scopes hands nothing over
		w = p.someScoped(p.random)
		for before := w.handedOver.Load(); w.handedOver.Load() == before; {
			if err := p.between(ctx, time.Millisecond, 2*time.Millisecond); err != nil {
				return fmt.Errorf("wait for a session that goes on elsewhere: %w", err)
			}
		}
	}
	w.kill()
	if err := p.between(ctx, 10*time.Millisecond, 500*time.Millisecond); err != nil {
		return err
	}
	if err := p.start(ctx, w.place); err != nil {
		return err
	}
	if _, err := p.wait(ctx, p.workers[w.place], "ready"); err != nil {
		return fmt.Errorf("after a kill: %w", err)
	}
	// Whoever took the session over begins it when one of its own has ended.
	return p.between(ctx, 500*time.Millisecond, time.Second)
}

package cached

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// killWorker ends a worker, at any time or at a point of a write's way. The others
// write nothing meanwhile: nobody but the dead one's marks says that what they
// hold is old.
func killWorker(ctx context.Context, p *parent) error {
	w := p.someWorker()
	if err := p.askAll(ctx, "quiet"); err != nil {
		return err
	}
	if err := p.between(ctx, 200*time.Millisecond, 500*time.Millisecond); err != nil {
		return err
	}
	points := []string{afterCommit, "", afterMark, "", beforeMark, afterCommit}
	w.process.Doom()
	switch point := points[len(p.happened["kill-worker"])%len(points)]; point {
	case "":
		w.process.Tell(command{Do: "rush"})
		if err := p.between(ctx, 20*time.Millisecond, 300*time.Millisecond); err != nil {
			return err
		}
		w.process.Kill()
	default:
		w.process.Tell(command{Do: "die", Point: point})
		select {
		case <-w.process.Ended():
		case <-ctx.Done():
			return fmt.Errorf("worker %d does not die: %w", w.index, ctx.Err())
		}
	}
	if err := errors.Join(p.probe(ctx), p.between(ctx, 3*lease, 5*lease)); err != nil {
		return err
	}
	next := w.nextLife()
	p.workers[w.index] = next
	if err := p.startLife(ctx, next); err != nil {
		return err
	}
	for _, other := range p.workers {
		if other != next {
			other.process.Tell(command{Do: "calm"})
		}
	}
	return next.await(ctx, "ready")
}

// freezeWorker stops a worker for longer than its lease, and now and then for
// longer than a mark lasts.
func freezeWorker(ctx context.Context, p *parent) error {
	w := p.someWorker()
	if err := w.process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	least := 2 * lease
	if p.random.IntN(4) == 0 && p.settings.Ops > 100_000 {
		least = 5500 * time.Millisecond
	}
	return errors.Join(p.between(ctx, least, least+2*lease), w.process.Signal(syscall.SIGCONT))
}

package testbed

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pollEvery is short against what is waited for (a server's start, the replay
// of a record) and long against one question to a loopback server.
const pollEvery = 5 * time.Millisecond

// until asks cond until it says true. It gives up when ctx ends, or after
// startLimit where ctx has no deadline, and then reports cond's last error too.
func until(ctx context.Context, what string, cond func(context.Context) (bool, error)) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		ok, err := cond(ctx)
		if ok {
			return nil
		}
		var fatal fatalError
		if errors.As(err, &fatal) {
			return fmt.Errorf("testbed: wait for %s: %w", what, fatal.error)
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("testbed: wait for %s: %w", what, errors.Join(ctx.Err(), last))
		case <-tick.C:
		}
	}
}

// fatalError ends until's polling: waiting longer cannot help.
type fatalError struct{ error }

func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, startLimit)
}

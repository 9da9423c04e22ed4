package run

import (
	"context"
	"fmt"
	"time"
)

// longest is the time that one fault may take, its undoing included.
const longest = time.Minute

// Schedule says when faults happen.
type Schedule[P any] struct {
	Faults []Fault[P]
	// Order draws the order of n faults in a round.
	Order func(n int) []int
	// Pause waits before each fault, and before the look at whether it is over.
	// It ends early with ctx, and says so by an error.
	Pause func(ctx context.Context) error
	// Enough reports whether the workers have done what they were to do.
	Enough func() bool
	// Failure gives the first failure of a worker.
	Failure <-chan error
	// Now tells the time by the clock of the operations.
	Now func() int64
}

// Run lets the faults happen to p, each once in every round, until enough was done
// and each has happened at least once, or until ctx ends, which is no error: what
// had not happened by then shows in the summary. A fault that has begun is undone
// also when the time is over. It returns the first error of a fault or a worker,
// and notes in happened what came to its end.
func (s *Schedule[P]) Run(ctx context.Context, p P, happened Happened) error {
	for round := 0; ; round++ {
		order := s.Order(len(s.Faults))
		if len(order) == 0 {
			order = []int{-1}
		}
		for _, i := range order {
			enough := s.Enough() && (round > 0 || i < 0)
			if s.Pause(ctx) != nil || ctx.Err() != nil || enough {
				return nil //nolint:nilerr // the end of ctx ends the schedule
			}
			select {
			case err := <-s.Failure:
				return err
			default:
			}
			if i < 0 {
				continue
			}
			if err := s.happen(ctx, s.Faults[i], p, happened); err != nil {
				return fmt.Errorf("fault %s: %w", s.Faults[i].Name, err)
			}
		}
	}
}

func (s *Schedule[P]) happen(ctx context.Context, f Fault[P], p P, happened Happened) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), longest)
	defer cancel()
	span := Span{From: s.Now()}
	if err := f.Run(ctx, p); err != nil {
		return err
	}
	span.To = s.Now()
	happened[f.Name] = append(happened[f.Name], span)
	return nil
}

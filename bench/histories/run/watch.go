package run

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Watched is a server that is looked at all the time.
type Watched struct {
	Name string
	// Look asks it what only a fault may change: its role, its start. An error says
	// that it gave no answer, which is no change.
	Look func(ctx context.Context) (string, error)
	// Close, if not nil, frees what Look has kept.
	Close func()
}

// Change is one of what a server said of itself, between two looks: From is when
// the last one was sent that was answered as before, To when the first had been
// answered otherwise.
type Change struct {
	Name, Was, Is string
	Span
}

// Watch looks at servers until it is stopped.
type Watch struct {
	now     func() int64
	stop    context.CancelFunc
	looking sync.WaitGroup
	mu      sync.Mutex // guards changes
	changes []Change
}

// patience is how long a look waits for its answer.
const patience = 5 * time.Second

// StartWatch looks at each of the servers, every so often. now is the clock of the
// operations.
func StartWatch(every time.Duration, now func() int64, servers ...Watched) *Watch {
	ctx, stop := context.WithCancel(context.Background())
	w := &Watch{now: now, stop: stop}
	for _, s := range servers {
		w.looking.Go(func() { w.watch(ctx, every, s) })
	}
	return w
}

func (w *Watch) watch(ctx context.Context, every time.Duration, s Watched) {
	if s.Close != nil {
		defer s.Close()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	was, last := "", int64(0)
	for {
		sent := w.now()
		look, cancel := context.WithTimeout(ctx, patience)
		is, err := s.Look(look)
		cancel()
		if err == nil {
			if was != "" && is != was {
				w.mu.Lock()
				w.changes = append(w.changes, Change{s.Name, was, is, Span{From: last, To: w.now()}})
				w.mu.Unlock()
			}
			was, last = is, sent
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Stop ends the watch and returns the changes in the order of their times. It may
// be called more than once.
func (w *Watch) Stop() []Change {
	w.stop()
	w.looking.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.changes, func(a, b Change) int { return int(a.From - b.From) })
	return w.changes
}

// Unasked says of the changes that happened while none of the named faults did. A
// checker that goes by what faults happened cannot judge a run with one.
func Unasked(changes []Change, happened Happened, names ...string) (noProof []string) {
	for _, c := range changes {
		asked := slices.ContainsFunc(names, func(name string) bool {
			return slices.ContainsFunc(happened[name], func(s Span) bool { return s.From <= c.To && c.From <= s.To })
		})
		if !asked {
			noProof = append(noProof, fmt.Sprintf("%s was %q and became %q between %.3f and %.3f, by no fault of the run", c.Name, c.Was, c.Is, seconds(c.From), seconds(c.To)))
		}
	}
	return noProof
}

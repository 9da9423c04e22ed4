package cachehook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errSlow   = errors.New("no answer in time")
	errDown   = errors.New("breaker open after failures")
	errClosed = errors.New("closed")
)

const (
	tripAfter  = 3 // failures in a row that open the breaker
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
	maxCalls   = 256 // calls to Redis at a time, those that were left behind included
)

// guard bounds what a slow or dead Redis costs. A context's deadline does not
// bound a call of go-redis unless ContextTimeoutEnabled is set, so each call has
// a goroutine that its caller may leave behind. After tripAfter failures in a
// row nobody calls but one in each pause, which doubles; a success ends that.
// Every operation of this package may arrive late or twice without harm.
type guard struct {
	budget time.Duration
	logger *slog.Logger
	slots  chan struct{}

	errors   atomic.Uint64
	failures atomic.Int32
	openTill atomic.Int64 // UnixNano of the next trial; 0: closed
	pause    atomic.Int64

	mu      sync.Mutex // guards stopped, and Add of running against Wait
	stopped bool
	running sync.WaitGroup
}

func newGuard(budget time.Duration, logger *slog.Logger) *guard {
	return &guard{budget: budget, logger: logger, slots: make(chan struct{}, maxCalls)}
}

// open reports whether calls are refused at present.
func (g *guard) open() bool { return g.openTill.Load() != 0 }

// admit lets a call through, or one trial while the breaker is open.
func (g *guard) admit() bool {
	till := g.openTill.Load()
	if till == 0 {
		return true
	}
	now := time.Now().UnixNano()
	return now >= till && g.openTill.CompareAndSwap(till, now+g.pause.Load())
}

// do calls f and waits for it at most the budget, and while ctx lives. The end
// of ctx is no failure of Redis.
func (g *guard) do(ctx context.Context, f func(context.Context) error) error {
	if !g.admit() {
		return errDown
	}
	timer := time.NewTimer(g.budget)
	defer timer.Stop()
	select {
	case g.slots <- struct{}{}:
	case <-timer.C:
		g.failed(errSlow)
		return errSlow
	case <-ctx.Done():
		return ctx.Err()
	}
	if !g.enter() {
		<-g.slots
		return errClosed
	}
	answer := make(chan error, 1)
	go func() {
		defer g.running.Done()
		defer func() { <-g.slots }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.budget)
		defer cancel()
		answer <- f(ctx)
	}()
	select {
	case err := <-answer:
		if err != nil {
			g.failed(err)
			return err
		}
		g.succeeded()
		return nil
	case <-timer.C:
		g.failed(errSlow)
		return errSlow
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *guard) failed(err error) {
	g.errors.Add(1)
	if g.failures.Add(1) < tripAfter {
		return
	}
	pause := min(max(2*g.pause.Load(), int64(firstPause)), int64(lastPause))
	g.pause.Store(pause)
	if g.openTill.Swap(time.Now().UnixNano()+pause) == 0 {
		g.logger.Warn("cachehook: Redis does not answer; statements go to the database", "error", err)
	}
}

func (g *guard) succeeded() {
	g.failures.Store(0)
	if g.openTill.Load() != 0 && g.openTill.Swap(0) != 0 {
		g.pause.Store(0)
		g.logger.Info("cachehook: Redis answers again")
	}
}

func (g *guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopped {
		g.running.Add(1)
	}
	return !g.stopped
}

// stop refuses further calls and waits for those under way, as long as the
// client's own timeouts let them live.
func (g *guard) stop() {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
	g.running.Wait()
}

func redisError(op string, err error) error { return fmt.Errorf("cachehook: %s in Redis: %w", op, err) }

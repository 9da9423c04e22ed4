package cachehook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	errSlow   = errors.New("no answer within Timeout")
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
// bound a call of go-redis unless ContextTimeoutEnabled is set, so a call has a
// goroutine that its caller may leave behind, but for the questions to a client
// where it is; see prompt. After tripAfter failures in a row nobody calls but one in each pause, which doubles; a success ends that.
// Every operation of this package may arrive late or twice without harm.
type guard struct {
	budget time.Duration
	logger *slog.Logger
	dial   func(context.Context) error // nil: there is no one server to dial
	slots  chan struct{}

	doubt func() // Redis has failed; nil: nobody asks

	errors   atomic.Uint64
	failures atomic.Int32
	last     atomic.Pointer[error] // of Redis itself, since its last success
	openTill atomic.Int64          // UnixNano of the next trial; 0: closed
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
		return g.because(errDown)
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
		err := f(ctx)
		g.said(err) // perhaps after its caller has left: it says more than "no answer"
		answer <- err
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

// direct calls f on the caller's goroutine: f ends when its context does. ctx has
// no end of its own.
func (g *guard) direct(ctx context.Context, f func(context.Context) error) error {
	if !g.admit() {
		return g.because(errDown)
	}
	ctx, cancel := context.WithTimeout(ctx, g.budget)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		g.failed(errSlow)
		return errSlow
	}
	if !g.enter() {
		return errClosed
	}
	defer g.running.Done()
	err := f(ctx)
	if err == nil {
		g.succeeded()
		return nil
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		err = errSlow // the connection's deadline, which is ctx's, may come first
	default:
		g.last.Store(&err)
		if ctx.Err() != nil {
			err = errSlow
		}
	}
	g.failed(err)
	return err
}

// said notes what Redis or its connection has said, for [guard.because].
func (g *guard) said(err error) {
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		g.last.Store(&err)
	}
}

func (g *guard) failed(err error) {
	g.errors.Add(1)
	if g.doubt != nil {
		g.doubt()
	}
	if g.failures.Add(1) < tripAfter {
		return
	}
	pause := min(max(2*g.pause.Load(), int64(firstPause)), int64(lastPause))
	g.pause.Store(pause)
	if g.openTill.Swap(time.Now().UnixNano()+pause) == 0 && g.enter() {
		go func() {
			defer g.running.Done()
			g.report(err)
		}()
	}
}

// report logs that Redis is taken for down. A client that tries to connect again
// and again outlasts the budget, and what it met meanwhile is never told: so the
// server is dialled once for the log's sake.
func (g *guard) report(err error) {
	if g.dial != nil && (errors.Is(err, errSlow) || errors.Is(err, context.DeadlineExceeded)) {
		ctx, cancel := context.WithTimeout(context.Background(), g.budget)
		defer cancel()
		if met := g.dial(ctx); met != nil {
			g.last.Store(&met)
		}
		err = g.because(err)
	}
	text := "cachehook: Redis does not answer; statements go to the database"
	if answer := redis.Error(nil); errors.As(err, &answer) {
		text = "cachehook: Redis answers with an error; statements go to the database"
	}
	about := []any{"error", err}
	if do := advice(err); do != "" {
		about = append(about, "advice", do)
	}
	g.logger.Warn(text, about...)
}

// because adds what Redis itself, or its connection, said last.
func (g *guard) because(err error) error {
	last := g.last.Load()
	if last == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, *last)
}

func (g *guard) succeeded() {
	g.failures.Store(0)
	if g.last.Load() != nil {
		g.last.Store(nil)
	}
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

// guards returns the guards of what the cache asks.
func (c *Cache) guards() []*guard {
	if r, ok := c.store.(*redisStore); ok && r.shard != nil {
		return []*guard{c.guard, r.shard.guard}
	}
	return []*guard{c.guard}
}

func redisError(op string, err error) error { return fmt.Errorf("cachehook: %s in Redis: %w", op, err) }

// dialOnce connects as the client does, and hangs up.
func dialOnce(o *redis.Options) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := o.Dialer(ctx, o.Network, o.Addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

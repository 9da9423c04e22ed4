package limithook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxCalls bounds the calls to Redis at a time. go-redis pools ten
	// connections a processor by default, so more would wait there.
	maxCalls = 128
	// maxIdle is how many goroutines wait for a call.
	maxIdle = 8
	// tripAfter is how many calls have to fail in a row before Redis counts
	// as down. One slow answer is that one request's affair.
	tripAfter = 3
	// maxMargin is how much less than the timeout is waited, for short ones a
	// sixteenth of it: a timer is late, and who waited has to run on.
	maxMargin = 5 * time.Millisecond
	// While Redis is down it is tried after these pauses, doubling.
	firstRecheck = 20 * time.Millisecond
	recheck      = 250 * time.Millisecond
	// retryUnavailable is what those are told whom Closed refuses.
	retryUnavailable = time.Second
)

var (
	errSlow   = errors.New("no answer in time")
	errClosed = errors.New("limithook: closed")
)

// link bounds what a hanging Redis can cost. A deadline of a context does not
// bound a call of go-redis unless ContextTimeoutEnabled is set, nor do the
// client's read, dial and pool timeouts and its retries stay below a sum that
// the limiter could choose. Where the deadline does bound it, a call is made on
// the caller's goroutine. Otherwise, and where the timeout is so long that the end
// of the caller's context should be noticed before, it runs on another goroutine
// that the caller may leave behind. That goes for every Cluster: its client asks for
// the table of commands for up to five seconds whatever the deadline, with
// ContextTimeoutEnabled too, and has no copy with shorter times. There are at most maxCalls at a time, and after
// tripAfter failures none but a probe, until a probe is answered. Some of the
// goroutines stay for further calls: a new one has to grow its stack in each.
type link struct {
	timeout time.Duration
	logger  *slog.Logger
	mode    Mode // what applies while Redis is down, for the log
	server  server
	direct  bool // calls end at the deadline of their context
	slots   chan struct{}

	failures atomic.Int32 // in a row
	down     atomic.Bool
	last     atomic.Pointer[error]
	dial     atomic.Pointer[error] // why no connection can be made; nil: one can

	calls, errors atomic.Uint64

	work chan *task // taken by an idle goroutine at once or not at all
	idle atomic.Int32

	mu      sync.Mutex // guards stopped, and Add of running against Wait
	stopped bool
	running sync.WaitGroup
	done    chan struct{}
}

// server is what a link asks of its own accord.
type server interface {
	probe(ctx context.Context) error       // asks a question
	unreachable(ctx context.Context) error // tells why it cannot be asked, if that is known
}

func newLink(cfg Config, s server) *link {
	return &link{
		timeout: cfg.Timeout - min(cfg.Timeout/16, maxMargin),
		logger:  cfg.Logger.With("db", cfg.Name),
		mode:    cfg.OnRedisFailure,
		server:  s,
		slots:   make(chan struct{}, maxCalls),
		work:    make(chan *task),
		done:    make(chan struct{}),
	}
}

// runner is what a link calls.
type runner interface {
	run(ctx context.Context) error
}

type runFunc func(context.Context) error

func (f runFunc) run(ctx context.Context) error { return f(ctx) }

// task is a call of f, with what its caller and its goroutine share.
type task struct {
	f       runner
	ctx     context.Context
	cancel  context.CancelFunc
	counted atomic.Bool // a call fails or succeeds once
	answer  chan error
}

// do calls f and waits until it returns, ctx ends or the timeout has passed.
// started says that f was, or still is being, called.
func (k *link) do(ctx context.Context, f runner) (started bool, err error) {
	if k.down.Load() {
		return false, k.why()
	}
	return k.attempt(ctx, f)
}

func (k *link) attempt(ctx context.Context, f runner) (started bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	// The caller's end does not stop the call: it may have charged.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.timeout)
	select {
	case k.slots <- struct{}{}:
	case <-bounded.Done():
		cancel()
		k.failed(errSlow)
		return false, errSlow
	case <-ctx.Done():
		cancel()
		return false, ctx.Err()
	}
	if k.direct {
		defer cancel()
		return k.now(bounded, f)
	}
	t := &task{f: f, ctx: bounded, cancel: cancel, answer: make(chan error, 1)}
	select {
	case k.work <- t:
	default:
		if !k.enter() {
			cancel()
			<-k.slots
			return false, errClosed
		}
		go k.serve(t)
	}
	k.calls.Add(1)
	select {
	case err := <-t.answer:
		return true, err
	case <-bounded.Done():
		select {
		case err := <-t.answer:
			return true, err
		default:
		}
		if !t.counted.Swap(true) {
			k.failed(errSlow)
		}
		return true, errSlow
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// now runs f on this goroutine.
func (k *link) now(ctx context.Context, f runner) (started bool, err error) {
	defer func() { <-k.slots }()
	if !k.enter() {
		return false, errClosed
	}
	defer k.running.Done()
	k.calls.Add(1)
	err = f.run(ctx)
	switch {
	case ctx.Err() != nil && err != nil:
		err = errSlow // however the client tells it
		fallthrough
	case err != nil:
		k.failed(err)
	default:
		k.failures.Store(0)
	}
	return true, err
}

// serve runs t and then what comes, unless enough goroutines wait already.
func (k *link) serve(t *task) {
	defer k.running.Done()
	for {
		k.run(t)
		if k.idle.Add(1) > maxIdle {
			k.idle.Add(-1)
			return
		}
		select {
		case t = <-k.work:
			k.idle.Add(-1)
		case <-k.done:
			return
		}
	}
}

func (k *link) run(t *task) {
	defer func() { <-k.slots }()
	defer t.cancel() // after the answer was sent
	err := t.f.run(t.ctx)
	switch {
	case t.counted.Swap(true):
	case err != nil:
		k.failed(err)
	case t.ctx.Err() != nil:
		k.failed(errSlow)
	default:
		k.failures.Store(0)
	}
	t.answer <- err
}

// failed counts a failure and, at the last one, starts to probe.
func (k *link) failed(err error) {
	k.errors.Add(1)
	k.last.Store(&err)
	if k.failures.Add(1) < tripAfter || k.down.Swap(true) {
		return
	}
	if !k.enter() {
		return
	}
	go k.awaitAnswer()
}

// awaitAnswer probes until Redis answers or the link is stopped.
func (k *link) awaitAnswer() {
	defer k.running.Done()
	begun := time.Now()
	k.look()
	k.logger.Warn("limithook: Redis does not answer: "+modes[k.mode], "mode", k.mode.String(), "error", k.cause())
	for pause := firstRecheck; ; pause = min(2*pause, recheck) {
		select {
		case <-k.done:
			return
		case <-time.After(pause):
		}
		if _, err := k.attempt(context.Background(), runFunc(k.server.probe)); err != nil {
			k.look()
		} else {
			k.failures.Store(0)
			k.down.Store(false)
			k.dial.Store(nil)
			k.logger.Info("limithook: Redis answers again", "after", time.Since(begun))
			return
		}
	}
}

// modes says what happens while Redis does not answer.
var modes = [...]string{
	Local:  "until it does, each process counts for itself",
	Open:   "until it does, everything is admitted",
	Closed: "until it does, everything is refused",
}

// look finds out whether a connection can be made at all.
func (k *link) look() {
	ctx, cancel := context.WithTimeout(context.Background(), k.timeout)
	defer cancel()
	if err := k.server.unreachable(ctx); err != nil {
		k.dial.Store(&err)
	} else {
		k.dial.Store(nil)
	}
}

// enter adds a goroutine, unless the link is stopped.
func (k *link) enter() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.stopped {
		k.running.Add(1)
	}
	return !k.stopped
}

// stop ends the probing and waits for all goroutines. It is called once.
func (k *link) stop() {
	k.mu.Lock()
	k.stopped = true
	k.mu.Unlock()
	close(k.done)
	k.running.Wait()
}

// why is the error that is given while Redis is down.
func (k *link) why() error { return fmt.Errorf("limithook: ask Redis: %w", k.cause()) }

// cause is the last failure. Of one that tells no more than that there was no
// answer, it is why no connection could be made.
func (k *link) cause() error {
	err := errSlow
	if last := k.last.Load(); last != nil {
		err = *last
	}
	if dial := k.dial.Load(); dial != nil && (errors.Is(err, errSlow) || errors.Is(err, context.DeadlineExceeded)) {
		return fmt.Errorf("%w: %w", errSlow, *dial)
	}
	return err
}

func (k *link) stats(st *Stats) {
	st.RedisCalls = k.calls.Load()
	st.RedisErrors = k.errors.Load()
	st.Down = k.down.Load()
}

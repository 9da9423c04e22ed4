// Package slowlog keeps slow statements: their own time, their place in the
// program and their plan, without their values.
//
//	log := slowlog.New(slowlog.Config{Threshold: 50 * time.Millisecond, Explain: slowlog.Plan})
//	if err := db.Use(log); err != nil { … }
//	defer log.Close()
//	…
//	for _, t := range log.Top(10) { fmt.Println(t.Sum, t.Count, t.Shape) }
//
// A statement's time is its own: not that of its preloads, of hooks or of the
// commit, nor that spent waiting for a limit or for another's query. What is kept holds no literal, no parameter and no error text, so that
// a history may be shown to whoever may read the program.
//
// Plans are asked for beside the traffic: by one goroutine, for one shape once in
// ten minutes, on a connection of its own, in a transaction that is read only,
// that is short and that is always rolled back, and never for what might write.
package slowlog

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// Log is the slow log of one *gorm.DB, a gorm.Plugin. It is safe for concurrent
// use.
type Log struct {
	cfg     Config
	limits  thresholds
	history *history
	now     func() time.Time

	dialect string // of the database, set by Initialize
	planner planner

	minTimeout time.Duration // of a statement that asks for a plan

	count struct {
		slow                                                  [maxOperations]atomic.Uint64
		unlogged, explained, dropped, skipped, failed, panics atomic.Uint64
	}

	reports  chan Entry
	explains chan *job

	mu     sync.Mutex // guards hub and remove, and makes Initialize and Close exclusive
	hub    *hook.Hub
	remove func()

	intake sync.RWMutex // held to read while a statement is taken in, to write by Close
	closed bool         // written under both locks

	ctx          context.Context // ends when Close can wait no longer
	cancel       context.CancelFunc
	explainCtx   context.Context // ends when Close waits for no further plan
	endExplains  context.CancelFunc
	stop         chan struct{} // closed when nothing more is taken in
	explainsDone chan struct{}
	reportsDone  chan struct{}
}

var (
	_ gorm.Plugin   = (*Log)(nil)
	_ hook.Observer = (*Log)(nil)
	_ hook.Meter    = (*Log)(nil)
)

// explainQueue is the number of statements that may wait for their plan.
const explainQueue = 32

// New makes a slow log. It cannot fail and starts nothing: db.Use checks cfg and
// begins.
func New(cfg Config) *Log {
	cfg = cfg.withDefaults()
	if len(cfg.HashKey) == 0 {
		cfg.HashKey = make([]byte, sha256.Size)
		_, _ = rand.Read(cfg.HashKey) // never fails
	}
	l := &Log{
		cfg: cfg, limits: newThresholds(cfg), now: time.Now, minTimeout: minExplainTimeout,
		history:      newHistory(cfg.History, cfg.MaxBytes),
		reports:      make(chan Entry, min(max(cfg.Queue, 0), maxHistory)),
		explains:     make(chan *job, explainQueue),
		stop:         make(chan struct{}),
		explainsDone: make(chan struct{}),
		reportsDone:  make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.WithValue(context.Background(), ownKey{}, true))
	l.explainCtx, l.endExplains = context.WithCancel(l.ctx)
	return l
}

// ownKey marks the contexts of this package's goroutines.
type ownKey struct{}

// Entries returns what is kept, newest first.
func (l *Log) Entries() []Entry {
	out := l.history.entries()
	for i := range out {
		out[i].resolve()
	}
	return out
}

// Top returns the n shapes that took the most time in all, the greatest first,
// among those kept.
func (l *Log) Top(n int) []Total { return l.history.top(n) }

// Stats returns the present counters.
func (l *Log) Stats() Stats {
	s := Stats{
		Unlogged:  l.count.unlogged.Load(),
		Explained: l.count.explained.Load(), ExplainDropped: l.count.dropped.Load(),
		ExplainSkipped: l.count.skipped.Load(), ExplainFailed: l.count.failed.Load(),
		Panics: l.count.panics.Load(),
	}
	for i := range l.count.slow {
		s.Slow += l.count.slow[i].Load()
	}
	s.Entries, s.Shapes, s.Bytes = l.history.size()
	return s
}

// The bounds of Close: how long plans may still be asked for, how long lines and
// sinks may take, and what a sink gets to see the end of its context.
const (
	closePlans = 2 * time.Second
	closeLines = 5 * time.Second
	closeGrace = 500 * time.Millisecond
)

// Close stops observing, hands what waits to Logger and Sink, and joins the
// goroutines. Plans that wait are asked for during two seconds at most; after
// five the context of Sink ends. An error says that Logger or Sink did not return
// even then. It is idempotent; Entries, Top and Stats go on working.
func (l *Log) Close() error {
	l.mu.Lock()
	started, remove := l.hub != nil, l.remove
	l.intake.Lock()
	first := !l.closed
	l.closed = true
	l.intake.Unlock()
	l.mu.Unlock()
	if remove != nil {
		remove()
	}
	if first {
		close(l.stop)
	}
	defer l.cancel()
	if !started {
		return nil
	}
	defer time.AfterFunc(closePlans, l.endExplains).Stop()
	defer time.AfterFunc(closeLines, l.cancel).Stop()
	limit := time.NewTimer(closeLines + closeGrace)
	defer limit.Stop()
	select {
	case <-l.reportsDone:
		return nil
	case <-limit.C:
		return errors.New("slowlog: close: Logger or Sink does not return; its goroutine is left behind")
	}
}

func (l *Log) logger() *slog.Logger { return cmp.Or(l.cfg.Logger, slog.Default()) }

// hashUser hides who user is: without the key it can be neither read nor tried out.
func (l *Log) hashUser(user string) string {
	if user == "" {
		return ""
	}
	m := hmac.New(sha256.New, l.cfg.HashKey)
	m.Write([]byte(user))
	return hex.EncodeToString(m.Sum(nil)[:8])
}

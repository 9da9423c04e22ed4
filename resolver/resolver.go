// Package resolver chooses the node that serves a statement: writes go to the
// primary, reads to a replica that is healthy, as fresh as was asked for, and
// has what the caller itself wrote; when there is none, to the primary.
//
// How fresh a replica is follows from samples of the primary's WAL position,
// taken a few times a second on a connection of their own: a replica's
// staleness is the age of the newest sample that it has replayed. No clock of a
// server, no heartbeat table and no privilege is needed, an idle primary makes
// nobody stale, and a replica that is cut off is found out.
//
// A [Resolver] is a gorm.Plugin:
//
//	r := resolver.New(resolver.Config{Replicas: resolver.DSNs(dsn1, dsn2)})
//	if err := db.Use(r); err != nil { … }
//	defer r.Close()
//
// Own writes are seen by whoever wrote: within a request or job that carries a
// scope its reads stay on the primary until a replica has replayed its last
// write. Without a scope that holds for the whole process, so programs that
// write all the time should open scopes, or their reads stay on the primary.
//
// A write is what may change something: by its words, by a lock, or by a function
// that it calls. A function sends a statement to the primary when Postgres calls
// it volatile or when it is not known, with two exceptions by name:
//
//   - Built-in functions that are volatile because their answers differ, and
//     change nothing, stay on replicas: random, gen_random_uuid, clock_timestamp,
//     pg_sleep, pg_relation_size and the like. A function of the database's own
//     that is declared volatile, which is the default, does not.
//   - Functions that Postgres calls stable or immutable and that a standby
//     refuses, or that write all the same, need the primary: txid_current,
//     pg_walfile_name, dblink and the like.
//
// What belongs to a session is a third kind. Outside of a transaction each
// statement runs on whichever connection of a pool is free, so pg_backend_pid and
// current_setting have no certain answer on any node, and stay on replicas. What
// changes the session or reads what it did (SET, SHOW, set_config, setseed, advisory
// locks, currval, lastval, pg_my_temp_schema, LISTEN, prepared statements and
// cursors by SQL) goes to the primary, and means something only on one
// connection: in a transaction or in GORM's db.Connection. A setting made so
// holds for that connection; current_setting on a replica does not show it.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// Resolver routes the statements of one *gorm.DB. All its methods are safe for
// concurrent use.
type Resolver struct {
	given Config
	cfg   Config
	now   func() int64 // nanoseconds, monotonic, above 0

	// Set by Initialize and constant after it.
	hub      *hook.Hub
	primary  *node
	replicas []*node
	nodes    []*node // the primary first
	expiry   int64   // nanoseconds from a probe's sending to the end of its verdict
	tightest time.Duration

	process  session // of all work that carries no scope
	rotation atomic.Pointer[rotation]
	opened   atomic.Bool // Initialize has succeeded
	live     atomic.Bool // between Initialize and Close
	demoted  atomic.Bool // the primary says that it is a standby

	mu         sync.Mutex // guards the following, and what node says; no I/O under it
	used       bool
	line       timeline
	timelineID uint32
	probed     chan struct{} // closed and replaced when a probe has ended

	watching   sync.Once // starts the primary's probes
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	unregister func()
	closing    sync.Once
	closeErr   error
}

// New makes a Resolver. It starts nothing and cannot fail: faults of cfg are
// reported by db.Use.
func New(cfg Config) *Resolver {
	return &Resolver{given: cfg, now: monotonic, probed: make(chan struct{})}
}

// base is where the clock starts; time.Since reads the monotonic clock.
var base = time.Now().Add(-1)

func monotonic() int64 { return int64(time.Since(base)) }

// Ready waits until each node has been probed once, whether or not it answered:
// from then on reads go to the replicas that are fit. A program that does not
// wait starts with the primary. The error is that of ctx and names who has not
// answered.
func (r *Resolver) Ready(ctx context.Context) error {
	if !r.live.Load() || len(r.replicas) == 0 {
		return nil
	}
	for {
		missing, next := r.unanswered()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("resolver: wait for the first probe of %s: %w", strings.Join(missing, ", "), ctx.Err())
		case <-r.ctx.Done():
			return errors.New("resolver: closed")
		}
	}
}

func (r *Resolver) unanswered() (names []string, next <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes {
		if !n.answered {
			names = append(names, n.name)
		}
	}
	return names, r.probed
}

// positionAfter implements hook.Positioner with the shared sample, forcing one if
// the last was sent before t.
func (r *Resolver) positionAfter(ctx context.Context, t time.Time) (uint64, error) {
	if !r.live.Load() {
		return 0, errors.New("resolver: no WAL position: closed")
	}
	if !r.hasLSN() {
		return 0, errors.New("resolver: no WAL position: the database has none")
	}
	r.watching.Do(func() { r.start(r.primary) })
	after := int64(t.Sub(base))
	timeout := time.NewTimer(r.cfg.Probe.Interval)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		s, ok := r.line.last()
		next := r.probed
		r.mu.Unlock()
		if ok && s.sent > after {
			return s.lsn, nil
		}
		r.primary.wake()
		select {
		case <-next:
		case <-timeout.C:
			return 0, fmt.Errorf("resolver: no WAL position: the primary did not answer within %v", r.cfg.Probe.Interval)
		case <-ctx.Done():
			return 0, fmt.Errorf("resolver: no WAL position: %w", ctx.Err())
		case <-r.ctx.Done():
			return 0, errors.New("resolver: no WAL position: closed")
		}
	}
}

// Close stops the probes, waits for them, and closes the replicas that it
// opened. Statements go to the primary from now on; those under way on a
// replica finish. It may be called more than once.
func (r *Resolver) Close() error {
	r.closing.Do(func() {
		if !r.live.Swap(false) {
			return
		}
		r.unregister()
		r.watching.Do(func() {}) // nobody starts it any more
		r.cancel()
		r.wg.Wait()
		r.closeErr = r.closeNodes()
	})
	return r.closeErr
}

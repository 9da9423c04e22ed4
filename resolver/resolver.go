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
// write. A transaction is written by whose statements write in it, whoever began
// it. Without a scope that holds for the whole process, so programs that write
// all the time should open scopes, or their reads stay on the primary; what is
// written without a scope binds the reads of the scopes too.
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

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// Resolver routes the statements of one *gorm.DB. All its methods are safe for
// concurrent use.
type Resolver struct {
	given   Config
	cfg     Config
	now     func() int64      // nanoseconds, monotonic, above 0
	lookup  pgconn.LookupFunc // of tests; nil: the connection's own
	off     rules             // switched off, in tests
	rereads time.Duration     // between two looks at the catalogue

	// Set by Initialize and constant after it.
	hub      *hook.Hub
	root     *Resolver // itself, or that of which this one serves a group
	field    string    // of the configuration, for errors
	serves   string    // the group that it serves, if it is not the root
	part     uint32    // of tokens that speaks of it
	groups   groups
	expiry   int64 // nanoseconds from a probe's sending to the end of its verdict
	tightest time.Duration

	set      atomic.Pointer[nodeSet]
	lead     atomic.Pointer[node] // the primary of now, see failover.go
	lineage  atomic.Pointer[lineage]
	process  session // of all work that carries no scope
	unscoped session // what was written without a scope, which all scopes see too
	rotation atomic.Pointer[rotation]
	opened   atomic.Bool  // Initialize has succeeded
	live     atomic.Bool  // between Initialize and Close
	vacant   atomic.Bool  // there is no primary, see vacancy
	hurry    atomic.Int64 // until when nodes are probed often
	spills   atomic.Int64 // reads that are on the primary because no replica is fit
	refusals [numPriorities]atomic.Uint64

	spillWaiting atomic.Int64
	spillRoom    chan struct{} // holds one value when a spilled read has ended

	mu           sync.Mutex // guards the following, and what node says; no I/O under it
	used         bool
	line         timeline
	timelineID   uint32  // the highest on which a primary was followed
	following    *node   // the primary that the rotation was made for
	ramping      bool    // a node does not take all of its share yet
	superseded   []*node // were the primary, and still have connections
	failovers    uint64
	failoverTime time.Duration
	lastFailover Failover
	probed       chan struct{} // closed and replaced when a probe has ended

	faults  []error                     // of Register and Call, for db.Use
	calls   []func(gorm.ConnPool) error // guarded by mu
	maxIdle int                         // 0: not set

	changing sync.Mutex // one change of the nodes at a time; held before mu, also over opening and closing

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
	r := &Resolver{given: cfg, now: monotonic, off: rulesOff(), rereads: rereadEvery, probed: make(chan struct{}), spillRoom: make(chan struct{}, 1)}
	r.root = r
	return r
}

// nodeSet is who there is, an immutable snapshot: nodes come and go at run time.
type nodeSet struct {
	all []*node // what gorm.Open connected to first
}

// primary is where writes go: what gorm.Open connected to, until a failover is
// noticed.
func (r *Resolver) primary() *node { return r.lead.Load() }

// nodes are what gorm.Open connected to and the replicas, in this order.
func (r *Resolver) nodes() []*node {
	if s := r.set.Load(); s != nil {
		return s.all
	}
	return nil
}

// replicas are the nodes besides the one that gorm.Open connected to. One of them
// may be the primary.
func (r *Resolver) replicas() []*node {
	if all := r.nodes(); len(all) > 0 {
		return all[1:]
	}
	return nil
}

// monotonic is the clock of the statements' records.
func monotonic() int64 { return int64(hook.Now()) }

// Ready waits until each node has been probed once, whether or not it answered:
// from then on reads go to the replicas that are fit. A program that does not
// wait starts with the primary. The error is that of ctx and names who has not
// answered.
func (r *Resolver) Ready(ctx context.Context) error {
	for _, far := range r.groups.far {
		if err := far.Ready(ctx); err != nil {
			return err
		}
	}
	if !r.live.Load() || len(r.replicas()) == 0 {
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

// done is closed when r is.
func (r *Resolver) done() <-chan struct{} {
	if r.ctx == nil {
		return nil
	}
	return r.ctx.Done()
}

func (r *Resolver) unanswered() (names []string, next <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes() {
		if !n.answered {
			names = append(names, n.name)
		}
	}
	return names, r.probed
}

// Close stops the probes, waits for them, and closes the replicas that it
// opened. Statements go to the primary from now on; those under way on a
// replica finish. It may be called more than once.
func (r *Resolver) Close() error {
	r.closing.Do(func() {
		r.changing.Lock()
		defer r.changing.Unlock()
		if !r.live.Swap(false) {
			return
		}
		r.unregister()
		r.watching.Do(func() {}) // nobody starts it any more
		r.cancel()
		r.wg.Wait()
		r.hub.SetPrimary(nil)
		r.lead.Store(r.nodes()[0])
		errs := []error{r.closeNodes()}
		for _, far := range r.groups.far {
			far.live.Store(false)
			far.watching.Do(func() {})
			far.cancel()
			far.wg.Wait()
			errs = append(errs, far.closeNodes())
		}
		r.closeErr = errors.Join(errs...)
	})
	return r.closeErr
}

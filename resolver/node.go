package resolver

import (
	"database/sql"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// node is one server with its pool.
type node struct {
	member
	cfg     Node
	given   bool // what gorm.Open connected to; its pool is the caller's
	home    *Resolver
	field   string   // of the configuration, for errors
	grouped bool     // serves groups alone
	groups  []*group // besides the default, or instead of it

	gate     gate
	draining atomic.Bool    // takes no new work
	begins   atomic.Int64   // transactions that are being begun
	stop     chan struct{}  // closed when the node is removed
	wg       sync.WaitGroup // of the node's goroutines
	most     atomic.Int64   // connections that the pool may open; 0: no bound known

	hooked   atomic.Pointer[hook.Node] // nil until the node could be opened
	db       atomic.Pointer[sql.DB]    // the pool below it; nil where it is no *sql.DB
	ours     *sql.DB                   // what we opened and close, or nil
	watch    watcher                   // the probe's connection, its goroutine's own
	sockets  *sockets                  // of the pool; nil where it was opened by somebody else
	dial     *gentle                   // what the pool dials with, likewise
	names    *names                    // nil when there is nothing to resolve
	doubted  atomic.Bool               // its last probe was not answered in time
	min      int                       // connections that are kept open
	idle     int                       // the most that may be idle; 0: not set by us
	lifetime time.Duration             // of a connection, as configured
	renewing atomic.Int64              // since when all connections are to be made anew; 0: not
	kick     chan struct{}             // asks for a probe at once
	renewed  chan struct{}             // asks for a look at the pool at once

	boot  atomic.Int64 // of the server that the probe watches, as in identity
	moved atomic.Bool  // a connection has reached another server than the probe watches, or a name means another

	watched atomic.Bool // it is probed
	// usable: in rotation and of the right role and history.
	usable      atomic.Bool
	decisions   [numReasons]atomic.Uint64
	probes      atomic.Uint64
	probeErrors atomic.Uint64
	connErrors  atomic.Uint64 // attempts that failed by the connection

	// The rest is guarded by Resolver.mu.
	health    health
	answered  bool // a probe has ended
	identity  identity
	last      reading
	lastHeard int64 // when last had come in
	misfit    misfit
	lastErr   string

	gone           bool  // the last probe was turned away
	misses         int   // probes without an answer, in a row
	heardAsPrimary int64 // when the last probe that it answered as the primary was sent
	rampFrom       int64 // since when its share grows; 0: it has all of it

	// What the log has said of the node since it answers.
	told       bool
	toldMisfit misfit
}

func newNode(r *Resolver, index int, cfg Node, given bool) *node {
	n := &node{cfg: cfg, given: given, kick: make(chan struct{}, 1), renewed: make(chan struct{}, 1)}
	n.node, n.home, n.index = n, r, index
	n.name, n.zone, n.weight = cfg.Name, cfg.Zone, cfg.Weight
	n.gate.init()
	n.stop = make(chan struct{})
	return n
}

// drained reports whether n takes no new work. A primary does, whatever was said
// of it while it was a replica.
func (n *node) drained() bool { return n.draining.Load() && !n.isPrimary() }

// isPrimary reports whether writes go to n.
func (n *node) isPrimary() bool { return n.home.primary() == n }

// misfit says why a healthy node is not used all the same.
type misfit uint8

const (
	fits          misfit = iota
	wrongRole            // a replica that is none, or a primary in recovery
	wrongSystem          // another database system
	wrongDatabase        // another database of the same system
	wrongTimeline        // another history of the same system
)

var misfitNames = [...]string{"", "wrong role", "other system identifier", "other database", "other timeline"}

func (m misfit) String() string { return misfitNames[m] }

// misfitText is n.misfit for the log.
func (n *node) misfitText() string {
	switch {
	case n.misfit != wrongRole:
		return n.misfit.String()
	case n.isPrimary():
		return "is a standby, not a primary"
	}
	return "is a primary, not a standby"
}

// identity is what a server tells of itself when the probe connects.
type identity struct {
	system   uint64 // 0: not told
	database uint32 // the OID, which a standby has from its primary; 0: not told
	units    walUnits
	boot     int64  // when the server started, microseconds of its clock; 0: not told
	conn     uint64 // numbers the probe's connections
}

// differ reports whether two databases, of the same system, are known to be two.
func differ(a, b uint32) bool { return a != 0 && b != 0 && a != b }

// reading is the answer to one probe.
type reading struct {
	placed   bool   // the database has WAL positions; the rest is void without
	standby  bool   // in recovery
	lsn      uint64 // inserted on a primary, replayed on a standby
	flushed  uint64 // on a primary
	timeline uint32 // 0: not told
}

// wake asks the node's goroutine for a probe at once.
func (n *node) wake() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

package resolver

import (
	"database/sql"
	"sync/atomic"

	"github.com/gorminfra/infra/internal/hook"
)

// node is one server with its pool.
type node struct {
	member
	cfg     Node
	primary bool

	hooked atomic.Pointer[hook.Node] // nil until the node could be opened
	db     atomic.Pointer[sql.DB]    // the pool below it; nil where it is no *sql.DB
	ours   *sql.DB                   // what we opened and close, or nil
	watch  watcher                   // the probe's connection, its goroutine's own
	min    int                       // connections that are kept open
	idle   int                       // the most that may be idle; 0: not set by us
	kick   chan struct{}             // asks for a probe at once

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

	// What the log has said of the node since it answers.
	told       bool
	toldMisfit misfit
}

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
	case n.primary:
		return "is a standby, not a primary"
	}
	return "is a primary, not a standby"
}

// identity is what a server tells of itself when the probe connects.
type identity struct {
	system   uint64 // 0: not told
	database uint32 // the OID, which a standby has from its primary; 0: not told
	units    walUnits
}

// reading is the answer to one probe.
type reading struct {
	placed   bool   // the database has WAL positions; the rest is void without
	standby  bool   // in recovery
	lsn      uint64 // inserted on a primary, replayed on a standby; normalised
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

package hook

import (
	"slices"
	"sync"
	"time"

	"gorm.io/gorm"
)

// Node is a physical pool, with its own store of prepared statements.
type Node struct {
	// Name is the node's name in metrics, headers and logs.
	Name string

	hub      *Hub
	physical gorm.ConnPool
	mu       sync.Mutex // guards the rest
	stmts    *gorm.PreparedStmtDB
	retired  []retiredStore
}

func newNode(h *Hub, name string, pool gorm.ConnPool) *Node {
	return &Node{Name: name, hub: h, physical: pool}
}

// NewNode makes a node of a pool that the caller opened and will close, after
// closing the node.
func (h *Hub) NewNode(name string, pool gorm.ConnPool) *Node {
	n := newNode(h, name, pool)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes = append(slices.Clone(h.nodes), n)
	return n
}

// Pool is the physical pool.
func (n *Node) Pool() gorm.ConnPool { return n.physical }

// target is where a statement outside transactions runs.
func (n *Node) target(prepared bool) gorm.ConnPool {
	if !prepared {
		return n.physical
	}
	return n.store()
}

// store is the node's own store of prepared statements, made at first use with
// the limits of GORM's configuration.
func (n *Node) store() *gorm.PreparedStmtDB {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stmts == nil {
		n.stmts = gorm.NewPreparedStmtDB(n.physical, n.hub.root.PrepareStmtMaxSize, n.hub.root.PrepareStmtTTL)
	}
	return n.stmts
}

// forget drops the prepared statement of text.
func (n *Node) forget(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stmts != nil {
		n.stmts.Mux.Lock()
		defer n.stmts.Mux.Unlock()
		n.stmts.Stmts.Delete(text)
	}
}

// Reset makes the node prepare its statements anew, after DDL. Statements that
// are running now keep theirs: the old store is closed a minute later, at the
// next Reset or with the node.
func (n *Node) Reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closeRetired(time.Now().Add(-time.Minute))
	if n.stmts != nil && len(n.stmts.Stmts.Keys()) > 0 {
		n.retired = append(n.retired, retiredStore{n.stmts, time.Now()})
		n.stmts = nil
	}
}

// Close closes the node's prepared statements and takes it from the hub. The
// pool is for whoever opened it.
func (n *Node) Close() {
	n.hub.mu.Lock()
	n.hub.nodes = slices.DeleteFunc(slices.Clone(n.hub.nodes), func(m *Node) bool { return m == n })
	n.hub.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closeRetired(time.Now())
	if n.stmts != nil {
		n.stmts.Close()
		n.stmts = nil
	}
}

func (n *Node) closeRetired(before time.Time) {
	n.retired = slices.DeleteFunc(n.retired, func(r retiredStore) bool {
		if r.since.After(before) {
			return false
		}
		r.store.Close()
		return true
	})
}

type retiredStore struct {
	store *gorm.PreparedStmtDB
	since time.Time
}

// unprepared is the physical pool below GORM's statement cache.
func unprepared(pool gorm.ConnPool) gorm.ConnPool {
	switch p := pool.(type) {
	case *gorm.PreparedStmtDB:
		return unprepared(p.ConnPool)
	case *gorm.PreparedStmtTX:
		return unprepared(p.Tx)
	}
	return pool
}

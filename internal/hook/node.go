package hook

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"
)

// Node is a physical pool, with its own store of prepared statements.
type Node struct {
	// Name is the node's name in metrics, headers and logs.
	Name string

	owner    atomic.Pointer[any]
	hub      *Hub
	physical gorm.ConnPool
	mended   atomic.Int64 // stale plans met
	mu       sync.Mutex   // guards stmts
	stmts    *gorm.PreparedStmtDB
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

// SetOwner keeps what the router calls this node.
func (n *Node) SetOwner(v any) { n.owner.Store(&v) }

// Owner returns what SetOwner kept, or nil. A nil Node has none.
func (n *Node) Owner() any {
	if n == nil {
		return nil
	}
	if v := n.owner.Load(); v != nil {
		return *v
	}
	return nil
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

// freshText is text with blanks behind it that no plan was made for yet, or
// not lately: pgx keeps plans by text, a few hundred for each connection.
func (n *Node) freshText(text string) string {
	return padded(text, 1+int(n.mended.Add(1)-1)%maxPadding)
}

// maxPadding bounds the blanks behind a text.
const maxPadding = 64

func padded(text string, n int) string { return text + strings.Repeat(" ", n) }

// Reset makes the node prepare its statements anew, after DDL. One that is
// about to run meets "statement is closed" and is prepared again.
//
// The store itself stays: GORM gives each a goroutine that never ends.
func (n *Node) Reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stmts != nil {
		n.stmts.Close()
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
	if n.stmts != nil {
		n.stmts.Close()
		n.stmts = nil
	}
}

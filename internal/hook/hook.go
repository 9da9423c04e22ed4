// Package hook is the wall that the parts of the plugin stand on. It wraps the
// terminal callback of each of GORM's six chains once, and GORM's connection
// pool, and calls the parts in ranked stages, whatever the order in which they
// were used:
//
//	gate     before GORM opens a transaction of its own
//	serve    a result from elsewhere than a database
//	charge   a read that now goes to a database
//	route    the node for this one statement, and the one retry
//	run      GORM's original callback
//	observe  the finished record
//
// While a terminal callback runs, Statement.ConnPool holds a statement pool: it
// receives the final SQL and arguments, so nothing is built early, a dry run
// never reaches it, and a refusal is an ordinary error of a query. It is taken
// back when the callback ends, so no later statement of the chain, no hook and
// no transaction inherits the node of an earlier one.
//
// Transactions are seen by wrapping the pool: [Txn] tells the parts of begin,
// before commit, committed, rolled back, and outcome unknown, for explicit and
// default transactions and for single statements that commit by themselves.
package hook

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/replay"
)

const pluginName = "infra:hook"

// Hub is the hook layer of one *gorm.DB. All its methods are safe for
// concurrent use.
type Hub struct {
	root    *gorm.DB
	home    *Node                // what gorm.Open connected to
	lead    atomic.Pointer[Node] // the primary of now
	pool    *Pool                // nil when GORM was opened over a transaction
	catalog catalog
	begun   begunByHand
	views   views
	texts   texts

	mu     sync.Mutex // guards the following three
	parts  []any
	nodes  []*Node // besides the primary
	replay *replay.DB

	stages  atomic.Pointer[stages]
	plugins atomic.Int64 // number of plugins among which no dbresolver was found
}

var _ gorm.Plugin = (*Hub)(nil)

// Attach returns the hook layer of db, installing it at the first call. It
// changes db's connection pool and callbacks, so it belongs into a plugin's
// Initialize, after its configuration was found valid. It does not block.
func Attach(db *gorm.DB) (*Hub, error) {
	if h, ok := db.Plugins[pluginName].(*Hub); ok {
		if h.root.Callback() != db.Callback() {
			return nil, h.otherDB()
		}
		return h, nil
	}
	if _, ok := db.Plugins[dbresolverName]; ok {
		return nil, ErrDBResolver
	}
	h := &Hub{catalog: catalog{reading: make(chan struct{}, 1)}, views: views{reading: make(chan struct{}, 1)}}
	h.stages.Store(&stages{hub: h})
	if err := db.Use(h); err != nil {
		return nil, err
	}
	return h, nil
}

// ErrDBResolver is returned when dbresolver is used on the same *gorm.DB: both
// would choose the node of each statement.
var ErrDBResolver = errors.New("hook: gorm.io/plugin/dbresolver is already used on this *gorm.DB and would route the same statements: " +
	"remove the db.Use(dbresolver.Register(...)) call and name the replicas in the resolver's Config; its clauses Read, Write and Use go on working")

const dbresolverName = "gorm:db_resolver"

// Name implements gorm.Plugin.
func (h *Hub) Name() string { return pluginName }

// Initialize implements gorm.Plugin; it is called by Attach.
func (h *Hub) Initialize(db *gorm.DB) error {
	if h.root != nil {
		return h.otherDB()
	}
	root := rootOf(db)

	// Replace logs a line for each callback, which is of no use to the user.
	quiet := root.Logger
	root.Logger = logger.Discard
	defer func() { root.Logger = quiet }()
	if err := h.wrapCallbacks(root); err != nil {
		return err
	}
	h.root = root
	h.rememberTexts(root)
	h.wrapPool(db)
	return nil
}

// otherDB says why a second *gorm.DB asks for this hub. It does so because it
// was opened with a copy of the first one's Config, which is what dbresolver
// does for its replicas.
func (h *Hub) otherDB() error {
	if h.root.Callback().Create().Get(dbresolverName) != nil {
		return ErrDBResolver
	}
	return errors.New("hook: the plugin already serves another *gorm.DB: open the second one with a gorm.Config of its own and use a second plugin on it")
}

// rootOf finds the *gorm.DB that gorm.Open made: a session has a copy of its
// Config, and what were installed there would be gone with the session.
func rootOf(db *gorm.DB) *gorm.DB {
	root := db
	_ = db.Callback().Query().Match(func(r *gorm.DB) bool { root = r; return false }).Register("infra:find_root", func(*gorm.DB) {})
	return root
}

// wrapPool puts the router in front of the physical pool, inside GORM's
// statement cache where there is one.
func (h *Hub) wrapPool(db *gorm.DB) {
	physical := h.root.ConnPool
	if prepared, ok := physical.(*gorm.PreparedStmtDB); ok {
		physical = prepared.ConnPool
	}
	h.home = newNode(h, "primary", physical)
	h.lead.Store(h.home)
	if _, inTx := physical.(gorm.TxCommitter); inTx {
		return
	}
	h.pool = &Pool{hub: h}
	for _, d := range []*gorm.DB{h.root, db} {
		d.ConnPool = h.inFrontOf(d.ConnPool, physical)
		if d.Statement != nil {
			d.Statement.ConnPool = h.inFrontOf(d.Statement.ConnPool, physical)
		}
	}
}

// inFrontOf returns our pool for the physical one, and leaves any other alone:
// the session that Use was called on may be a transaction.
func (h *Hub) inFrontOf(pool, physical gorm.ConnPool) gorm.ConnPool {
	if prepared, ok := pool.(*gorm.PreparedStmtDB); ok {
		prepared.ConnPool = h.inFrontOf(prepared.ConnPool, physical)
		return prepared
	}
	if t := reflect.TypeOf(pool); t == reflect.TypeOf(physical) && t.Comparable() && pool == physical {
		return h.pool
	}
	return pool
}

// Home is the node that gorm.Open connected to.
func (h *Hub) Home() *Node { return h.home }

// Primary is the node that writes go to: what gorm.Open connected to, unless a
// Router has found another one since.
func (h *Hub) Primary() *Node { return h.lead.Load() }

// SetPrimary is for a Router that follows a failover. Transactions and pinned
// connections stay where they are; db.DB() gives the new primary's pool from now
// on. Nil sets the node that gorm.Open connected to.
func (h *Hub) SetPrimary(n *Node) {
	if n == nil {
		n = h.home
	}
	h.lead.Store(n)
}

// DB is the *gorm.DB that gorm.Open made.
func (h *Hub) DB() *gorm.DB { return h.root }

// Routed reports whether statements can be routed: not when GORM was opened
// over a transaction, which is all that then exists.
func (h *Hub) Routed() bool { return h.pool != nil }

// Register adds a part. What it takes part in is found by the interfaces that
// it implements: [Gate], [Server], [Charger], [Router], [Observer],
// [TxnObserver]. At most one Router and one Server are possible. The returned
// function takes the part out again; statements under way finish with it. The
// part is known by its value, so that this must be comparable.
func (h *Hub) Register(part any) (remove func(), err error) {
	if v := reflect.ValueOf(part); !v.IsValid() || !v.Comparable() {
		return nil, fmt.Errorf("hook: Register %T: a part must be comparable, such as a pointer", part)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	parts := append(slices.Clone(h.parts), part)
	st, err := h.newStages(parts)
	if err != nil {
		return nil, err
	}
	h.parts = parts
	h.stages.Store(st)
	return sync.OnceFunc(func() { h.remove(part) }), nil
}

func (h *Hub) remove(part any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts = slices.DeleteFunc(slices.Clone(h.parts), func(p any) bool { return p == part })
	st, err := h.newStages(h.parts)
	if err != nil {
		panic(fmt.Sprintf("hook: fewer parts made a conflict: %v", err)) // cannot happen
	}
	h.stages.Store(st)
	if len(h.parts) == 0 && h.replay != nil {
		_ = h.replay.Close()
		h.replay = nil
	}
}

// unpooled is for statements that go on after the last part was removed, when
// nobody would close another pool.
var unpooled replay.DB

// Replay gives the pool that makes results of values in memory. It is closed
// when the last part has been removed, and goes on to make results for those
// statements that have got it before.
func (h *Hub) Replay() *replay.DB {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.parts) == 0 {
		return &unpooled
	}
	if h.replay == nil {
		h.replay = replay.New()
	}
	return h.replay
}

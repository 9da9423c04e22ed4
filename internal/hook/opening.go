package hook

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"
)

// opening is the part of a read-only transaction's life in which nobody has been
// shown anything of it: until its first statement has brought a row. When the
// connection breaks before, the transaction can begin anew on another node, and
// its caller sees no difference: a snapshot is taken by the first statement.
type opening struct {
	opts *sql.TxOptions
	hint Hint

	state atomic.Int32
	mu    sync.Mutex // held while the transaction moves, which changes Tx.Tx and Txn.Node
}

const (
	unused  int32 = iota
	first         // its first statement is under way, and nothing else
	settled       // it stays where it is
)

// newOpening returns that of a transaction of such options, to be opened, or nil
// if it cannot move.
func newOpening(st *stages, opts *sql.TxOptions) *opening {
	if _, ok := st.router.(TxRetrier); !ok || opts == nil || !opts.ReadOnly {
		return nil
	}
	o := &opening{opts: opts}
	o.state.Store(settled)
	return o
}

// open begins it, for a transaction that was asked for with hint and that nobody
// has been given yet.
func (o *opening) open(hint Hint) {
	if o != nil {
		o.hint = hint
		o.state.Store(unused)
	}
}

// enter is called for each statement. It reports whether this is the first.
func (o *opening) enter() bool {
	if o == nil || o.state.Load() == settled {
		return false
	}
	if o.state.CompareAndSwap(unused, first) {
		return true
	}
	o.settle()
	return false
}

// settle is called before anything else is done with the transaction: from now on
// it stays. If it moves just now, settle waits.
func (o *opening) settle() {
	if o == nil || o.state.Load() == settled {
		return
	}
	o.mu.Lock()
	o.state.Store(settled)
	o.mu.Unlock()
}

// node is where the transaction runs now.
func (t *Tx) node() *Node {
	if o := t.opening; o != nil && o.state.Load() != settled {
		o.mu.Lock()
		defer o.mu.Unlock()
	}
	return t.txn.Node
}

// inTxn runs a statement in its transaction.
func inTxn[T any](ctx context.Context, r *Record, run func(context.Context, gorm.ConnPool, string) (T, error)) (T, error) {
	t := r.Txn.tx
	// Through another plugin's pool it comes back as one that nobody knows of.
	isFirst := !r.wrapped && t.opening.enter()
	res, err := run(ctx, r.target(), t.text(r.SQL))
	if isFirst {
		if err != nil && r.Access == ReadOnly && t.move(ctx, r, err) {
			res, err = run(ctx, r.target(), t.text(r.SQL))
		}
		t.opening.settle()
	}
	if r.prepared && stalePlan(err) {
		r.Node.forget(r.SQL) // the transaction is lost, the next one is not
	}
	return res, err
}

// move begins the transaction anew where the router says, after r, its first
// statement, failed with err before a row came.
func (t *Tx) move(ctx context.Context, r *Record, err error) bool {
	router, ok := t.txn.stages.router.(TxRetrier)
	// Its life is that of the context which it was begun with: a statement with a
	// time of its own would wait beyond that.
	if begun := t.txn.Context; !ok || ctx.Done() != begun.Done() || begun.Err() != nil {
		return false
	}
	o := t.opening
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state.Load() != first { // somebody else uses it
		return false
	}
	node := t.txn.Node
	for i := range maxRetries {
		if node = router.RetryTx(t.txn.Context, node, o.opts, o.hint, err); node == nil {
			return false
		}
		if i == 0 {
			_ = t.Tx.Rollback() // gives the connection back
		}
		var physical gorm.Tx
		if physical, err = beginAt(t.txn.Context, t.txn.stages, node, o.opts); err == nil {
			t.Tx, t.txn.Node, r.Node = physical, node, node
			t.prepared.Store(nil) // it was of the other node
			r.Retries++
			return true
		}
	}
	return false
}

// beginAt begins a transaction on node for the router.
func beginAt(ctx context.Context, st *stages, node *Node, opts *sql.TxOptions) (gorm.Tx, error) {
	if b, ok := st.router.(Begun); ok {
		defer b.Begun(node)
	}
	return physicalTx(ctx, node.physical, opts)
}

func physicalTx(ctx context.Context, pool gorm.ConnPool, opts *sql.TxOptions) (gorm.Tx, error) {
	begun, err := beginOn(ctx, pool, opts)
	if err != nil {
		return nil, err
	}
	physical, ok := begun.(gorm.Tx)
	if !ok {
		return nil, gorm.ErrInvalidTransaction
	}
	return physical, nil
}

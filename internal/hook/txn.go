package hook

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

// maxTxnWrites bounds the statements a transaction remembers. Past it the
// transaction counts as having written everything.
const maxTxnWrites = 1024

// Txn is a transaction as the parts see it.
type Txn struct {
	// Context is the context it was begun with.
	Context context.Context
	// Node is where it runs; for an autocommit write it is known at its end.
	Node *Node
	// ReadOnly: begun with sql.TxOptions{ReadOnly: true}.
	ReadOnly bool
	// Autocommit: a single write outside any transaction.
	Autocommit bool
	// Foreign: the statement ran on a pool or transaction that is not ours. When
	// it commits is not known: count it as committed now, and trust no more.
	Foreign bool
	// Over reports, for a write in a *sql.Tx of the program's own, or after a BEGIN
	// by hand, whether that transaction has ended or is about to: its COMMIT may
	// be under way. Nil where it cannot be told. It sends nothing.
	Over func() bool
	// Pinned: an autocommit write on a connection of db.Connection. When the
	// program has sent BEGIN there by hand, the write commits with its COMMIT.
	Pinned bool
	// Held is that connection.
	Held *sql.Conn

	stages *stages
	tx     *Tx // nil: Autocommit

	session atomic.Bool
	loose   atomic.Bool // a COMMIT by its text has been sent in it

	mu     sync.Mutex // guards the rest
	state  txnState
	writes []*sqltext.Statement
	values map[any]any
}

type txnState uint8

const (
	txnOpen txnState = iota
	txnCommitting
	txnEnded
)

// TxnOutcome is how a transaction ended.
type TxnOutcome uint8

// The outcomes. Unknown: COMMIT was sent and its answer lost; it may have
// happened.
const (
	Committed TxnOutcome = iota
	RolledBack
	Unknown
)

var txnOutcomeNames = [...]string{"committed", "rolled_back", "unknown"}

func (o TxnOutcome) String() string { return txnOutcomeNames[o] }

// Session reports whether a statement of the transaction has changed settings of
// the session, so that names may mean other tables than elsewhere.
func (t *Txn) Session() bool { return t.session.Load() }

// Wrote reports whether the transaction may have changed anything.
func (t *Txn) Wrote() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.writes) > 0
}

// Writes returns the statements that may have changed something, each text
// once, also those of savepoints that were rolled back. The slice is the
// caller's.
func (t *Txn) Writes() []*sqltext.Statement {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.writes)
}

// Value returns what a part keeps with the transaction under key, or nil.
func (t *Txn) Value(key any) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.values[key]
}

// SetValue keeps v with the transaction under key, a part's own type.
func (t *Txn) SetValue(key, v any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.values == nil {
		t.values = make(map[any]any, 2)
	}
	t.values[key] = v
}

// note remembers a write, and tells who wants to know whose it is.
func (t *Txn) note(ctx context.Context, text *sqltext.Statement, args []any, s *scope.Scope) {
	if t.stages != nil {
		for _, w := range t.stages.writers {
			w.Wrote(ctx, t, s)
		}
		for _, w := range t.stages.readers {
			w.Writes(t, text, args)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.writes, text) {
		return
	}
	if len(t.writes) >= maxTxnWrites {
		text = unreadable
		if slices.Contains(t.writes, text) {
			return
		}
	}
	t.writes = append(t.writes, text)
}

// unreadable is a write to everything.
var unreadable = sqltext.Parse("?")

func (t *Txn) begin() {
	for _, o := range t.stages.txns {
		o.Begin(t)
	}
}

// startCommit reports whether the parts have to be asked: not when the
// transaction has ended already, and COMMIT will only say so.
func (t *Txn) startCommit() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != txnOpen {
		return false
	}
	t.state = txnCommitting
	return len(t.writes) > 0
}

func (t *Txn) beforeCommit(ctx context.Context) error {
	for _, o := range t.stages.txns {
		if err := o.BeforeCommit(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// cancelled is called when the context has ended. A COMMIT under way decides
// itself.
func (t *Txn) cancelled() {
	t.mu.Lock()
	open := t.state == txnOpen
	t.mu.Unlock()
	if open {
		t.end(RolledBack)
	}
}

// end tells the parts once. Only a commit that succeeds although the context's
// end was taken for a roll-back is told after that: a nil from COMMIT wins.
func (t *Txn) end(outcome TxnOutcome) {
	t.mu.Lock()
	ended := t.state == txnEnded
	t.state = txnEnded
	t.mu.Unlock()
	if ended && outcome != Committed {
		return
	}
	for _, o := range t.stages.txns {
		o.Ended(t, outcome)
	}
}

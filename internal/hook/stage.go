package hook

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

// Gate is asked before anything is done for a statement. For the chains Create,
// Update and Delete that is before GORM opens its default transaction, when the
// SQL is not known yet; for the others the SQL is known and nothing has been
// served. An error refuses the statement and is what the caller gets.
type Gate interface {
	Gate(ctx context.Context, r *Record) error
}

// Server may answer a statement of the chains Query and Row that runs outside
// any transaction and on our own pool.
type Server interface {
	// Serves reports whether Serve shall be asked. It is called for each such
	// statement and must be cheap.
	Serves(r *Record) bool
	// Serve returns the result. It calls r.Next to go on to a database. Where
	// r.CanFill it may return no rows and the error of r.FillWith.
	Serve(ctx context.Context, r *Record) (*sql.Rows, error)
}

// Unserved says why no [Server] is asked for a statement.
type Unserved uint8

// The reasons. Servable: there is none, and the server decides. NotAQuery: the
// chain is another than Query and Row. Bounded: the caller has said of what node, or
// how fresh, the answer must be.
const (
	Servable Unserved = iota
	NoServer
	NotAQuery
	InTransaction
	OtherPool
	Bounded
)

// Unserved reports whether a Server may be asked for the statement, and why not.
func (r *Record) Unserved() Unserved {
	st := r.stages
	switch {
	case st.server == nil:
		return NoServer
	case r.Chain != Query && r.Chain != Row:
		return NotAQuery
	case r.Where == InTxn:
		return InTransaction
	case r.Where != Pooled:
		return OtherPool
	case st.binder != nil && st.binder.Bound(r):
		return Bounded
	}
	return Servable
}

// Charger is asked before a statement of the chains Query and Row (and a
// direct call of the pool) goes to a database. An error refuses the statement.
type Charger interface {
	Charge(ctx context.Context, r *Record) error
}

// Router chooses nodes.
type Router interface {
	// Route chooses the node for a statement outside transactions. It may set
	// r.Reason, and wait no longer than ctx allows.
	Route(ctx context.Context, r *Record) (*Node, error)
	// Retry chooses another node after the attempt on r.Node failed with err, or
	// returns nil. It is asked only while no row has been given to the caller, outside
	// transactions, until the statement may have reached two servers: again after
	// each attempt that found no connection, three times at most.
	Retry(ctx context.Context, r *Record, err error) *Node
	// Done is called once for each attempt, when it has ended: for rows, when
	// they have been read. d is the attempt's time.
	Done(r *Record, node *Node, err error, d time.Duration)
	// RouteTx chooses the node of a transaction. The end of the transaction is
	// told to a TxnObserver.
	RouteTx(ctx context.Context, opts *sql.TxOptions, hint Hint) (*Node, error)
}

// Observer receives each finished record: after the terminal callback, for the
// Rows of a caller's own loop after their Close. Refused statements are among
// them, dry runs and statements that GORM could not build are not. It must not
// keep the record's DB; it runs on the caller's goroutine and must not block.
type Observer interface {
	Observe(ctx context.Context, r *Record)
}

// TxnObserver is told of transactions. Autocommit writes are transactions of
// one statement.
type TxnObserver interface {
	// Begin is called when the transaction is open. Not for autocommit.
	Begin(t *Txn)
	// BeforeCommit is called before COMMIT is sent, and before an autocommit
	// write is sent, if the transaction wrote. An error makes it a roll-back and
	// is returned to the caller.
	BeforeCommit(ctx context.Context, t *Txn) error
	// Ended is called once, before the caller learns of the outcome.
	Ended(t *Txn, outcome TxnOutcome)
}

// Binder is an optional ability of a Router.
type Binder interface {
	// Bound reports whether the caller has said of what node, or how fresh, the
	// answer to a read must be, so that no Server may answer it. It must be cheap.
	Bound(r *Record) bool
}

// WriteObserver is an optional ability of a TxnObserver.
type WriteObserver interface {
	// Wrote is called for each statement that may write, before it is sent. ctx and
	// s are the statement's own: in a transaction it may be the work of somebody
	// else than who began it. It must be cheap.
	Wrote(ctx context.Context, t *Txn, s *scope.Scope)
}

// WriteReader is an optional ability of a TxnObserver.
type WriteReader interface {
	// Writes is called for each statement that may write, before it is sent, with
	// its arguments where they are known. They must not be kept. It must be cheap.
	Writes(t *Txn, text *sqltext.Statement, args []any)
}

// stages is an immutable snapshot of who takes part in what.
type stages struct {
	hub       *Hub
	gates     []Gate
	server    Server
	chargers  []Charger
	router    Router
	budgeter  Budgeter // the router, if it is one
	placer    Placer   // likewise
	binder    Binder   // likewise
	observers []Observer
	txns      []TxnObserver
	writers   []WriteObserver
	readers   []WriteReader
	meters    []Meter
}

func (h *Hub) newStages(parts []any) (*stages, error) {
	st := &stages{hub: h}
	for _, p := range parts {
		if g, ok := p.(Gate); ok {
			st.gates = append(st.gates, g)
		}
		if s, ok := p.(Server); ok {
			if st.server != nil {
				return nil, errors.New("hook: two query caches on one *gorm.DB: use one of them")
			}
			st.server = s
		}
		if c, ok := p.(Charger); ok {
			st.chargers = append(st.chargers, c)
		}
		if r, ok := p.(Router); ok {
			if st.router != nil {
				return nil, errors.New("hook: two resolvers on one *gorm.DB: use one of them")
			}
			st.router = r
			st.budgeter, _ = p.(Budgeter)
			st.binder, _ = p.(Binder)
			if pl, ok := p.(Placer); ok && pl.Places() {
				st.placer = pl
			}
		}
		if o, ok := p.(Observer); ok {
			st.observers = append(st.observers, o)
		}
		if t, ok := p.(TxnObserver); ok {
			st.txns = append(st.txns, t)
			if w, ok := p.(WriteObserver); ok {
				st.writers = append(st.writers, w)
			}
			if w, ok := p.(WriteReader); ok {
				st.readers = append(st.readers, w)
			}
		}
		if m, ok := p.(Meter); ok {
			st.meters = append(st.meters, m)
		}
	}
	return st, nil
}

// Positioner is an optional ability of a Router.
type Positioner interface {
	// PositionAfter returns a WAL position of the primary that was read by a
	// sample which started after t: every commit that had returned by t lies at
	// or below it. It blocks for at most one probe interval or until ctx ends.
	PositionAfter(ctx context.Context, t time.Time) (lsn uint64, err error)
}

// Positioner returns the router's ability to tell WAL positions, or nil.
func (h *Hub) Positioner() Positioner {
	p, _ := h.stages.Load().router.(Positioner)
	return p
}

// TxRetrier is an optional ability of a Router.
type TxRetrier interface {
	// RetryTx chooses another node for a transaction that could not begin on
	// node, or returns nil. Nothing has run in it, or, if it is read-only, its first
	// statement failed before a row; it is asked three times at most.
	RetryTx(ctx context.Context, node *Node, opts *sql.TxOptions, hint Hint, err error) *Node
}

// Begun is an optional ability of a Router.
type Begun interface {
	// Begun is called when an attempt to begin a transaction on a node that
	// RouteTx or RetryTx chose has ended, well or not.
	Begun(node *Node)
}

// Placer is an optional ability of a Router that sends tables to nodes of their
// own.
type Placer interface {
	// Places reports whether it does; it is asked when the parts change.
	Places() bool
	// Place returns the node to which work with such a hint would go now, or nil.
	Place(hint Hint) *Node
}

// OutcomeTeller is an optional ability of a Router.
type OutcomeTeller interface {
	// OutcomeUnknown returns the caller's error for a write or a COMMIT that was
	// sent and may have happened, although err came back. It wraps err.
	OutcomeUnknown(err error) error
}

// outcomeError lets the router name what err leaves open.
func (st *stages) outcomeError(outcome TxnOutcome, err error) error {
	if err == nil || outcome != Unknown {
		return err
	}
	if t, ok := st.router.(OutcomeTeller); ok {
		return t.OutcomeUnknown(err)
	}
	return err
}

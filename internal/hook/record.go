package hook

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/gorminfra/infra/internal/replay"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

// Chain is the GORM callback chain that a statement runs in.
type Chain uint8

// The six chains, and Direct for calls of the pool's own methods, which other
// plugins make.
const (
	Create Chain = iota
	Query
	Update
	Delete
	Row
	Raw
	Direct
)

var chainNames = [...]string{"create", "query", "update", "delete", "row", "raw", "direct"}

func (c Chain) String() string { return chainNames[c] }

// writes reports whether the chain is one of GORM's three writing ones, which
// have passed the gate before their default transaction.
func (c Chain) writes() bool { return c == Create || c == Update || c == Delete }

// Outcome says where a statement's answer came from.
type Outcome uint8

// The outcomes. A statement that failed in the database is Database with an Err.
const (
	Database Outcome = iota
	L1
	L2
	Shared // another statement's answer from the same flight
	Refused
)

var outcomeNames = [...]string{"database", "l1", "l2", "shared", "refused"}

func (o Outcome) String() string { return outcomeNames[o] }

// Lookup says what the cache did for a statement. It is the [Server]'s to set;
// where the answer came from is the Outcome.
type Lookup uint8

// The kinds of look-up. NotAsked: there is no cache, or it has no business with
// the statement: no rule, a transaction, a write. Miss: the database was asked
// because the cache did not hold the answer. Bypass: the statement asked for the
// cache, which could not be used for it just now, or for results like its own.
const (
	NotAsked Lookup = iota
	Hit
	Miss
	Bypass
)

var lookupNames = [...]string{"not_asked", "hit", "miss", "bypass"}

func (l Lookup) String() string { return lookupNames[l] }

// Access says what a statement needs of a node.
type Access uint8

// The kinds of access. ReadOnly may run on a hot standby; NeedsPrimary changes
// no row but cannot run there (locks, sequences, session state); Write may
// change rows or schema, also by a function that may do so.
const (
	ReadOnly Access = iota
	NeedsPrimary
	Write
)

var accessNames = [...]string{"read", "primary", "write"}

func (a Access) String() string { return accessNames[a] }

// Where says what kind of pool a statement runs on.
type Where uint8

// The kinds of pool. Only Pooled statements are routed and cached.
const (
	Pooled  Where = iota // our pool
	InTxn                // a transaction of our pool
	Pinned               // a connection of db.Connection
	Foreign              // a pool or a transaction that somebody else made
)

// Record is what is known of one statement, from its start until it has been
// observed. It belongs to the statement's goroutine.
//
// Each statement has one, and its size is most of what this layer costs: what
// few statements need is in its [rare], and small fields stand together.
type Record struct {
	Chain   Chain
	Where   Where
	Outcome Outcome
	Lookup  Lookup
	Access  Access
	// Background: run by the plugin itself, not for a waiting caller.
	Background bool
	// Quiet: observers are not told of it, because another record tells of it: a
	// flight that runs for a caller whose own record is observed.
	Quiet bool
	// NeedPrimary is set by a server whose fill must not come from a replica.
	NeedPrimary bool
	// Mark is the router's own, for what it must know again in Done.
	Mark uint8
	// Retries counts the attempts after the first.
	Retries uint8

	prepared bool // the caller uses prepared statements
	reached  bool // SQL has reached the statement pool
	wrapped  bool // another plugin's pool stands around ours
	sent     bool // the server may have seen it
	charged  bool // the chargers have let it, or its fork, go to a database
	forked   bool
	fillable bool
	trying   bool // an attempt on Node is under way, of whose end the router is to be told
	done     atomic.Bool

	// DB is the statement's own *gorm.DB, never nil. It must not be kept.
	DB *gorm.DB
	// Schema is that of the statement's model as the chain began, nil without
	// one. It may be kept, and read when DB is the caller's again: GORM shares
	// it and changes no more than its map of relationships, under Mux.
	Schema *schema.Schema
	// Context is the context the statement runs with.
	Context context.Context
	// SQL and Args are final. They are empty at the gate of a writing chain.
	SQL  string
	Args []any
	// Text is what is known of SQL; nil at the gate of a writing chain.
	Text *sqltext.Statement
	// Scope is the scope of Context, nil without one or after its end.
	Scope *scope.Scope
	// Txn is the transaction that the statement runs in or is.
	Txn *Txn
	// Parent is the statement whose Preload this one is, or nil.
	Parent *Record

	// Node is the node of the last attempt, nil when none was needed. Reason is
	// the router's one word for its choice.
	Node   *Node
	Reason string
	// Session is the router's own note on whose work this is.
	Session any
	// Shown is the time by which a cached answer had been read from a database;
	// zero: up to now.
	Shown Moment

	// Start is the time at which the terminal callback began. Duration is the
	// statement's own time: building, waiting, running and scanning it, without
	// its preloads, hooks and GORM's default transaction; of Rows to their
	// Close. Waited is the part of it spent waiting for something else than the
	// statement's own run: somebody else's flight, a limit, the cache's Redis and
	// its catalogue.
	Start    Moment
	Duration time.Duration
	Waited   time.Duration
	// Rows is GORM's RowsAffected, -1 when not known.
	Rows int64
	Err  error

	stages  *stages
	orig    gorm.ConnPool // Statement.ConnPool as it was
	filler  Filler
	attempt time.Duration // when it began, from Start
	rows    *rowsContext
	rare    *rare // nil until something of it is set
}

// rare is what few statements have.
type rare struct {
	cancel  func()    // of the context of an attempt with a budget
	conn    *sql.Conn // of a write that must not be sent twice
	answer  *answer   // of a write whose rows the caller reads
	part    *Txn      // what ends with the statement, in a transaction that goes on
	outer   *Record   // the statement that this Direct one is sent for
	runErr  error     // the driver's error, before GORM translates it
	hint    Hint      // of a fork
	onScan  func(*gorm.Statement)
	minLSN  uint64
	callers []uintptr
}

// nothingRare is read for the records that have none, and never written.
var nothingRare rare

// few is what the record has of the rare things, to be read.
func (r *Record) few() *rare {
	if r.rare == nil {
		return &nothingRare
	}
	return r.rare
}

// setRare is few, to be written.
func (r *Record) setRare() *rare {
	if r.rare == nil {
		r.rare = new(rare)
	}
	return r.rare
}

// newRecord starts the record of one statement on pool.
func (h *Hub) newRecord(st *stages, chain Chain, db *gorm.DB, pool gorm.ConnPool) *Record {
	r := &Record{
		Chain: chain, DB: db, Context: db.Statement.Context, Start: Now(), Rows: -1,
		stages: st, orig: pool,
	}
	if chain != Direct {
		r.Schema = db.Statement.Schema
	}
	h.classify(r, pool)
	if v, ok := setting(db.Statement, preloadParent); ok {
		r.Parent, _ = v.(*Record)
	}
	return r
}

// reach notes the final SQL, once it is known and about to be sent.
func (r *Record) reach(ctx context.Context, text string, args []any) {
	r.reached = true
	r.learn(ctx, text, args)
	if r.Text.Session && r.Txn != nil {
		r.Txn.session.Store(true)
	}
}

// learn finds out what follows from the final SQL.
func (r *Record) learn(ctx context.Context, text string, args []any) {
	r.Context, r.SQL, r.Args = ctx, text, args
	r.Text = sqltext.Analyze(text)
	r.Access = r.stages.hub.accessOf(ctx, r.Text, r.Where == Pooled)
	if r.Access == ReadOnly && (r.Text.System || r.ofMigrator() || r.ofFirstOr()) {
		r.Access = NeedsPrimary
	}
	r.findScope(ctx)
}

func (r *Record) findScope(ctx context.Context) {
	if s := scope.From(ctx); s != nil && !s.Ended() {
		r.Scope = s
	}
}

// NeedLSN is for a server whose fill needs a node that has replayed up to lsn. Zero:
// any.
func (r *Record) NeedLSN(lsn uint64) {
	if r.MinLSN() != lsn {
		r.setRare().minLSN = lsn
	}
}

// MinLSN is what NeedLSN has been told.
func (r *Record) MinLSN() uint64 { return r.few().minLSN }

// Hint returns what dbresolver's clauses on the statement ask for.
func (r *Record) Hint() Hint {
	if r.forked {
		return r.few().hint
	}
	return hintOf(r.DB.Statement)
}

// Table is the table that the statement is about, as GORM or its text names it.
func (r *Record) Table() string {
	if t := r.DB.Statement.Table; t != "" && r.Chain != Direct {
		return t
	}
	if r.Text != nil && len(r.Text.Writes) > 0 {
		return r.Text.Writes[0].Name
	}
	if r.Text != nil && len(r.Text.Reads) > 0 {
		return r.Text.Reads[0].Name
	}
	return ""
}

// finish ends the record: the attempt, an autocommit transaction, observers.
// completed is false while a panic or Goexit unwinds.
func (r *Record) finish(completed bool) {
	if !r.done.CompareAndSwap(false, true) {
		return
	}
	if len(r.stages.observers) > 0 || r.trying || r.Scope != nil { // who asks for it
		r.Duration = Now().Sub(r.Start)
	}
	if r.rows != nil {
		r.rows.drop()
	}
	r.release()
	if cancel := r.few().cancel; cancel != nil {
		cancel()
	}
	err := r.databaseError()
	r.endAttempt(err, r.Duration)
	if t := r.Txn; t != nil && t.Autocommit {
		switch {
		case !r.sent:
			t.end(RolledBack)
		case r.few().answer != nil:
			t.end(r.rare.answer.ended())
		case completed && (r.rows == nil || err != nil):
			t.end(autocommitOutcome(err))
		default:
			t.end(Unknown) // a panic, or Rows whose own error we do not see
		}
	}
	r.endPart(completed && (r.rows == nil || err != nil), err)
	if outer := r.few().outer; outer != nil {
		outer.Node = r.Node
	}
	if r.Quiet || !r.reached && r.Outcome != Refused {
		return
	}
	r.touch()
	for _, o := range r.stages.observers {
		o.Observe(r.Context, r)
	}
}

// databaseError is Err as the driver gave it: GORM may have translated it, or
// made an error of an empty result.
func (r *Record) databaseError() error {
	if run := r.few().runErr; run != nil || r.Err == nil || errors.Is(r.Err, gorm.ErrRecordNotFound) {
		return run
	}
	return r.Err
}

// Asked is the time at which the router is asked for the first attempt's node, short
// of what the statement has computed since its start: what it has waited for before is
// counted, and the clock need not be read. The attempt counts from it.
func (r *Record) Asked() Moment { return r.Start.Add(r.attempt) }

// Delayed is for a router that has waited for a node: the attempt counts from now.
func (r *Record) Delayed() { r.attempt = Now().Sub(r.Start) }

// endAttempt tells the router that the attempt under way has ended, at now from
// Start.
func (r *Record) endAttempt(err error, now time.Duration) {
	if r.trying {
		r.trying = false
		r.stages.router.Done(r, r.Node, err, now-r.attempt)
	}
}

// Read tells that the rows of Next have been read to their end, where work follows
// that is none of the node's: its attempt ends here, and not with the statement.
func (r *Record) Read() {
	if r.trying {
		r.endAttempt(nil, Now().Sub(r.Start))
	}
}

// asRow makes a *sql.Row of a result, which database/sql itself cannot.
func (r *Record) asRow(ctx context.Context, rows *sql.Rows) *sql.Row {
	src, err := replay.FromRows(rows)
	if err != nil {
		return replay.ErrorRow(err)
	}
	return r.stages.hub.Replay().Row(ctx, src)
}

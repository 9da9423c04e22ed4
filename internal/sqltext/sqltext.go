// Package sqltext says what one SQL text is: its shape and fingerprint, its
// operation, the tables that it reads and writes, whether it locks, and which
// functions it calls. Routing, caching, and the observers decide by it.
//
// The text is read by a tokenizer and a clause walker of our own, in one pass,
// without regular expressions, in linear time. They know the lexical rules of
// Postgres fully and those of SQLite and MySQL as far as GORM and common raw SQL
// use them. What they cannot read is [Unknown], never a guess: callers send it to
// the primary, cache nothing of it and treat it as a write to everything.
//
// The package knows neither GORM nor a database: it sees text only. Views,
// triggers, foreign keys and functions of the user's own are for whoever has the
// catalogue; [Statement.UnknownFunctions] names what to look up there.
package sqltext

// Statement is what is known of one SQL text. It is shared between goroutines
// and must not be changed.
type Statement struct {
	// Fingerprint is the xxhash of Shape; the same in every process.
	Fingerprint uint64
	// Shape is the text without its values: comments dropped, white space and
	// case folded, literals, their casts and parameters written "?", IN lists,
	// row lists, arrays and multi-row VALUES folded to one element of each kind.
	// Two texts of one shape are the same statement up to values.
	Shape string
	// Operation is that of the outermost statement. A CTE that writes shows in
	// Writes, not here. Of several statements it is the first one's.
	Operation Operation
	// Reads are the tables (or views) read, each once, in order of appearance:
	// joins, subqueries, CTE bodies, set operations. Names of CTEs and table
	// functions are not among them, nor is the target of a write.
	Reads []Table
	// Writes are the tables written, each once: targets of INSERT, UPDATE,
	// DELETE, MERGE, TRUNCATE, COPY FROM, SELECT INTO, also inside CTEs, and of
	// DDL where the text names them.
	Writes []Table
	// Functions are the functions called, each once, as Postgres folds their
	// names, with their schema where one is written; pg_catalog is dropped.
	Functions []string
	// UnknownFunctions are those of Functions that are not built into Postgres;
	// what SQLite and MySQL have built in is among them. They may do anything; the
	// catalogue knows.
	UnknownFunctions []string
	// Where holds the equality conditions that are AND-ed at the top of the
	// WHERE of a SELECT, UPDATE or DELETE on a single table.
	Where []Predicate
	// Upsert is what is known of the ON CONFLICT of an INSERT, when all of it can be
	// read; else nil.
	Upsert *Upsert

	// Locking: FOR UPDATE, NO KEY UPDATE, SHARE, KEY SHARE, LOCK, or a function
	// that takes an advisory lock.
	Locking bool
	// Volatile: a function is called that belongs on the primary, such as
	// nextval, set_config, pg_notify, advisory locks, lo_*, txid_current.
	Volatile bool
	// Unstable: the answer is not decided by tables and parameters alone: now(),
	// random(), CURRENT_USER, 'today', TABLESAMPLE, pg_stat_* and their like.
	Unstable bool
	// Personal: Unstable for no other reason than who asks: CURRENT_USER and its
	// like, current_setting, pg_has_role.
	Personal bool
	// Multiple: there is more than one statement in the text.
	Multiple bool
	// Session: the state of the session is changed or used: SET, set_config,
	// LISTEN, PREPARE, DISCARD, cursors, temporary tables that show as such.
	Session bool
	// Opaque: tables may be written that the text does not name: CALL, DO,
	// EXECUTE, CASCADE, dblink, most DDL. Invalidate everything.
	Opaque bool
	// Creates: a SELECT INTO makes a table. DDL does so too, and is not told of here.
	Creates bool
	// Commits: a statement of the text commits what its transaction has done: COMMIT,
	// END, PREPARE TRANSACTION.
	Commits bool
	// Opens: a transaction is open afterwards: BEGIN, COMMIT AND CHAIN.
	Opens bool
	// System: a catalogue or a temporary table is among Reads.
	System bool
	// WhereExact: the WHERE holds nothing but Where and "column IS NULL".
	WhereExact bool
	// Limit: the outermost query has a LIMIT or FETCH FIRST.
	Limit bool
	// Aggregate: the outermost query aggregates: a GROUP BY, a HAVING, or a call of
	// an aggregate, so that it may answer with a row where no row matches. A
	// user-defined aggregate is one of UnknownFunctions and does not show here.
	Aggregate bool

	text   string // the text itself, the memo's key
	writes bool   // an operation that writes is somewhere in the text
}

// Table is a table's name as Postgres folds it: unquoted in lower case, quoted
// as it stands. Schema is empty when the text gives none.
type Table struct {
	Schema, Name string
}

// String returns the name, with its schema if it has one.
func (t Table) String() string {
	if t.Schema == "" {
		return t.Name
	}
	return t.Schema + "." + t.Name
}

// Predicate is one condition "column = value" or "column IN (values)".
type Predicate struct {
	// Table is the table's name without its schema, also where the text writes
	// an alias or nothing.
	Table string
	// Column is the column's name, folded as Table is.
	Column string
	// Op is "=" or "in"; "column = ANY($1)" is "in".
	Op string
	// Args are the indexes, from 0, of the parameters compared with.
	Args []int
	// Literal: at least one value is written in the text and not among Args.
	Literal bool
	// Array: the one parameter of Args holds all values, as in "= ANY($1)".
	Array bool
	// Cast: a value is cast first, and what is compared may be another one than was
	// passed: 'abcdef'::varchar(3).
	Cast bool
}

// ReadOnly reports whether the statement certainly only reads and is safe on a
// hot standby: a single SELECT, VALUES, TABLE, or an EXPLAIN of anything that is
// not executed, with no write, lock, session change, volatile or unknown function.
func (s *Statement) ReadOnly() bool {
	return s.ReadOnlyIf(nil)
}

// ReadOnlyIf is ReadOnly with the unknown functions judged by safe, which gets
// each name of UnknownFunctions and reports whether it may run on a standby. A
// nil safe trusts none.
func (s *Statement) ReadOnlyIf(safe func(function string) bool) bool {
	if s.Operation != Select && s.Operation != Explain {
		return false
	}
	if s.writes || s.Opaque || s.Locking || s.Volatile || s.Multiple || s.Session || len(s.Writes) > 0 {
		return false
	}
	for _, f := range s.UnknownFunctions {
		if safe == nil || !safe(f) {
			return false
		}
	}
	return true
}

// Cacheable reports whether the answer depends on nothing but the parameters,
// the tables in Reads and settings of the session that do not change (time zone,
// search path, formats): a ReadOnly SELECT of at least one table, none of them a
// catalogue or temporary one, and not Unstable. Whether a name in Reads is a
// view, and under which policies, only the catalogue knows. Of a parameter that the
// server may read as a moving date ('now', 'today') [MovingTime] tells.
func (s *Statement) Cacheable() bool {
	return s.CacheableIf(nil)
}

// CacheableIf is Cacheable with the unknown functions judged by pure, which gets
// each name of UnknownFunctions and reports whether its answer is decided by its
// arguments: in Postgres those that the catalogue calls immutable. A nil pure
// trusts none.
func (s *Statement) CacheableIf(pure func(function string) bool) bool {
	return s.Operation == Select && len(s.Reads) > 0 && !s.Unstable && !s.System && s.ReadOnlyIf(pure)
}

// MayWrite reports whether the statement may change rows or schema: all that is
// unknown, and all that writes. Locks and sequences alone change neither. Without
// tables in Writes, or with Opaque, what it changes is not known.
func (s *Statement) MayWrite() bool {
	return s.Operation == Unknown || s.writes || s.Opaque || len(s.Writes) > 0
}

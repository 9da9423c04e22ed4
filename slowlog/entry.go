package slowlog

import (
	"fmt"
	"time"
)

// Entry is one slow statement. It holds no value of the statement: neither
// literals nor parameters, nor the text of an error.
type Entry struct {
	// Time is when the statement began.
	Time time.Time
	// Fingerprint identifies Shape, in every process alike.
	Fingerprint uint64
	// Shape is the statement with "?" for its values, cut after 8 KiB.
	Shape string
	// Operation is "select", "insert", "update" and the like.
	Operation string
	// Table is the table written, or the first one read.
	Table string

	// Duration is the time from the statement's start to its end: building,
	// waiting, running and scanning it, without its preloads, hooks and commit; of
	// Rows to their Close.
	Duration time.Duration
	// Waited is the part of Duration that was spent waiting for something else
	// than the statement's own run: a limit, another statement's answer, the
	// cache's Redis. What is left, [Entry.Own], made the statement slow.
	Waited time.Duration
	// Rows is the number of rows read or changed, -1 when not known.
	Rows int64
	// Error is empty, the five characters of a server's SQLSTATE, or a kind:
	// "canceled", "timeout", "not_found", "connection", "duplicate_key",
	// "foreign_key", "check", "other".
	Error string

	// Outcome is where the answer came from: "database", "l1", "l2", "shared".
	Outcome string
	// Node is where it ran; empty when no database was asked.
	Node string
	// Background: run by the plugin itself, not for a waiting caller.
	Background bool

	// Site is the line of the program that ran the statement.
	Site Site
	// Route is the name of the request or job, empty without a scope.
	Route string
	// User is a hash of what Config.User gave.
	User string
	// TraceID is what Config.TraceID gave.
	TraceID string

	// Seen counts the slow statements of this shape up to this one.
	Seen uint64
	// Plan is the latest plan of the shape, nil without one. It is shared and
	// must not be changed.
	Plan *QueryPlan

	pc uintptr // what Site is resolved from, when somebody looks
}

// Own is the statement's own time: Duration without Waited.
func (e Entry) Own() time.Duration { return ownTime(e.Duration, e.Waited) }

func ownTime(duration, waited time.Duration) time.Duration { return max(0, duration-waited) }

// Site is a line of the program.
type Site struct {
	Function string
	File     string
	Line     int
}

// String returns "file:line function", or "" for no site.
func (s Site) String() string {
	if s.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d %s", s.File, s.Line, s.Function)
}

// Total is what is known of one shape since it was first slow.
type Total struct {
	Fingerprint uint64
	Shape       string
	Operation   string
	Table       string
	// Count is the number of slow statements, Sum and Max are of their own times,
	// see [Entry.Own].
	Count    uint64
	Sum, Max time.Duration
	// Last is when the latest one began.
	Last time.Time
	// Plan is the latest plan, nil without one. It is shared and must not be
	// changed.
	Plan *QueryPlan
}

// Mean is the mean own time of the shape's slow statements.
func (t Total) Mean() time.Duration {
	if t.Count == 0 {
		return 0
	}
	return t.Sum / time.Duration(t.Count)
}

// Stats are counters since New, and the present size of the history.
type Stats struct {
	// Slow is the number of slow statements.
	Slow uint64
	// Unlogged are those for which Queue had no room.
	Unlogged uint64
	// Explained are the plans got. ExplainDropped were not asked for because the
	// worker or the pool had no room, ExplainSkipped because the statement is not
	// certainly a read or its parameters cannot be kept, ExplainFailed were
	// refused by the database.
	Explained, ExplainDropped, ExplainSkipped, ExplainFailed uint64
	// Panics are those of Logger, Sink, User and TraceID.
	Panics uint64
	// Entries, Shapes and Bytes are what the history holds.
	Entries, Shapes, Bytes int
}

const (
	maxShape = 8 << 10 // bytes of a kept shape
	maxLabel = 256     // bytes of a kept route, table, node or trace id
)

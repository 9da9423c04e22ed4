package resolver

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorminfra/infra/internal/hook"
)

// ErrNoPrimary is returned for a statement that needs the primary when none was
// found within Config.FailoverWait: the last one is in recovery or gone, which
// the text says, and no other node claims a later timeline. Nothing was sent.
// From a COMMIT it means that another node was promoted since the transaction
// began; it was rolled back.
var ErrNoPrimary = errors.New("resolver: no primary")

// ErrOutcomeUnknown is wrapped by the error of a write or a COMMIT that was sent
// when the connection broke, or the context ended, before the answer came: it
// may have happened. It is never sent again. The driver's error is wrapped too.
var ErrOutcomeUnknown = errors.New("resolver: outcome unknown")

// ErrBusy is returned for a read when no replica is fit for it and as many such
// reads as Class.Spill allows are on the primary, and for a [Background] read
// when a node has no connections to spare for it. Nothing was sent. Its text
// names the reason.
var ErrBusy = errors.New("resolver: busy")

// ErrNoReplica is returned for a read that may not go to the primary, as a
// [Background] one, when no replica is fit for it. Nothing was sent. Its text
// names the reason.
var ErrNoReplica = errors.New("resolver: no replica is fit")

// ErrUnknownNode is returned when dbresolver.Use names no group, table of one,
// or node, and by the methods that take a node's name.
var ErrUnknownNode = errors.New("resolver: unknown node")

// over reports whether the caller's own time is over. A dial ends by the deadline
// itself, which may be a moment before the context says so.
func over(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}

// failureOf reads an error of the driver as evidence against a node. eof tells
// that a bare EOF is the driver's and not, say, a decoder's of the caller. That the
// caller's own context has ended is to be looked at before.
func failureOf(err error, eof bool) failure {
	var connect *pgconn.ConnectError
	switch {
	case err == nil:
		return noFailure
	case errors.Is(err, hook.ErrBudget):
		return timedOut
	case errors.Is(err, context.DeadlineExceeded) && errors.As(err, &connect):
		return timedOut // by the connection string's own connect_timeout
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return noFailure // the caller gave up; whether the node is ill the probes tell
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return failureOfState(pg, err)
	}
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Timeout():
		return timedOut
	case errors.As(err, &connect), errors.As(err, &op),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, pgconn.ErrConnClosed):
		return refused
	case eof && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)):
		return refused
	}
	return noFailure
}

// failureOfState reads a server's SQLSTATE.
func failureOfState(pg *pgconn.PgError, err error) failure {
	switch pg.Code {
	case "57P01", "57P02", "57P03": // admin_shutdown, crash_shutdown, cannot_connect_now
		return refused
	case "57P05": // idle_session_timeout
		return dropped
	case "53300": // too_many_connections
		return saturated
	case "40001", "40P01": // on a standby a conflict with recovery
		return conflict
	}
	var connect *pgconn.ConnectError
	switch {
	case ofPooler(pg):
		if strings.HasPrefix(pg.Message, "query_wait_timeout") || strings.Contains(pg.Message, "max_client_conn") {
			return saturated
		}
		return refused
	case errors.As(err, &connect):
		return refused // it does not let us in: password, database, pg_hba.conf
	}
	return noFailure
}

// ofPooler reports whether a pooler in front of the server ended the connection.
// PgBouncer says protocol_violation for whatever keeps it from the server ("server
// login has been failing", "server conn crashed?"), and for its own bounds.
func ofPooler(pg *pgconn.PgError) bool {
	return len(pg.Code) == 5 && pg.Code[:2] == "08" && pg.Severity == "FATAL"
}

// whyOf names the evidence for the log, where a failure alone says too little:
// the error's own text stands beside it.
func whyOf(f failure, err error) string {
	var pg *pgconn.PgError
	var dns *net.DNSError
	var parse *pgconn.ParseConfigError
	var late net.Error
	switch {
	case errors.As(err, &pg):
		return "error of the server"
	case errors.As(err, &dns):
		return "host name not resolved"
	case errors.As(err, &parse):
		return "connection string not readable"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case f == timedOut && errors.As(err, &late) && late.Timeout():
		return "timeout"
	}
	return f.String()
}

// probeFailure reads the error of a probe: whatever it is, there was no answer. A
// server that has no connection to spare for the probe lives all the same.
func probeFailure(err error) failure {
	if f := failureOf(err, true); f == refused || f == saturated {
		return f
	}
	return timedOut
}

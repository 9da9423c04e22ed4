package metrics

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"gorm.io/gorm"
)

// class is what kind of trouble an error is, for whoever is woken by it.
type class uint8

const (
	classNone        class = iota
	classCanceled          // the caller went away
	classTimeout           // a deadline, statement_timeout
	classConnection        // no connection, or a lost one
	classConstraint        // unique, foreign key, check, not null
	classConflict          // serialization failure, deadlock, lock not available
	classReadOnly          // a write reached a node that may not write
	classTransaction       // the transaction has ended or was aborted
	classStatement         // syntax, unknown names, types, permissions, bad values
	classServer            // out of memory, disk or connections, internal errors
	classOther
	classCount
)

var classNames = [classCount]string{
	"none", "canceled", "timeout", "connection", "constraint", "conflict", "read_only", "transaction", "statement", "server", "other",
}

// classOf reads an error. Finding no record is none.
func classOf(err error) class {
	switch {
	case err == nil, errors.Is(err, gorm.ErrRecordNotFound), errors.Is(err, sql.ErrNoRows):
		return classNone
	case errors.Is(err, context.Canceled):
		return classCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return classTimeout
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return classOfState(state.SQLState())
	}
	var network net.Error
	switch {
	case errors.As(err, &network):
		if network.Timeout() {
			return classTimeout
		}
		return classConnection
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return classConnection
	case errors.Is(err, gorm.ErrDuplicatedKey), errors.Is(err, gorm.ErrForeignKeyViolated), errors.Is(err, gorm.ErrCheckConstraintViolated):
		return classConstraint // the driver's error as TranslateError leaves it
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, gorm.ErrInvalidTransaction):
		return classTransaction
	}
	return classOther
}

// classOfState reads an SQLSTATE:
// https://www.postgresql.org/docs/current/errcodes-appendix.html
func classOfState(state string) class {
	switch state {
	case "57014": // query_canceled, when it was not us
		return classTimeout
	case "57P01", "57P02", "57P03", "57P05": // shut down, starting up, idle too long
		return classConnection
	case "40001", "40P01", "55P03":
		return classConflict
	case "25006":
		return classReadOnly
	}
	if len(state) < 2 {
		return classOther
	}
	switch state[:2] {
	case "08":
		return classConnection
	case "23":
		return classConstraint
	case "40":
		return classConflict
	case "25", "2D":
		return classTransaction
	case "21", "22", "26", "28", "34", "3D", "3F", "42", "44":
		return classStatement
	case "53", "54", "58", "F0", "XX":
		return classServer
	}
	return classOther
}

package hook

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5"
)

// commitOutcome reads the answer to COMMIT. When it is not certain that nothing
// was committed, the outcome is Unknown.
func commitOutcome(err error) TxnOutcome {
	switch {
	case err == nil:
		return Committed
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, pgx.ErrTxCommitRollback):
		return RolledBack
	case err == context.Canceled, err == context.DeadlineExceeded: //nolint:errorlint // see below
		// The bare values come from database/sql, which sent nothing; an end of
		// the context during COMMIT arrives wrapped by the driver.
		return RolledBack
	case refusedByServer(err):
		return RolledBack
	}
	return Unknown
}

// autocommitOutcome reads the answer to a statement that commits by itself.
func autocommitOutcome(err error) TxnOutcome {
	switch {
	case err == nil:
		return Committed
	case refusedByServer(err):
		return RolledBack
	}
	return Unknown // also an error of our own side while reading the answer
}

// refusedByServer reports whether the server answered that the statement failed
// and will go on: not when it was about to die, or did not know itself.
func refusedByServer(err error) bool {
	state := sqlState(err)
	if len(state) != 5 || state == "40003" { // statement_completion_unknown
		return false
	}
	switch state[:2] {
	case "08", "57", "58", "53", "XX", "F0":
		return false
	}
	return true
}

package hook

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
)

// commitOutcome reads the answer to COMMIT. When it is not certain that nothing
// was committed, the outcome is Unknown. A context that ends during COMMIT is:
// pgx then returns the bare context.Canceled, as database/sql does when it has
// sent nothing.
func commitOutcome(err error) TxnOutcome {
	switch {
	case err == nil:
		return Committed
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, pgx.ErrTxCommitRollback), notSent(err), refusedByServer(err):
		return RolledBack
	}
	return Unknown
}

// autocommitOutcome reads the answer to a statement that commits by itself.
func autocommitOutcome(err error) TxnOutcome {
	switch {
	case err == nil:
		return Committed
	case notSent(err), refusedByServer(err):
		return RolledBack
	}
	return Unknown // also an error of our own side while reading the answer
}

// NotSent reports whether err proves that the server has not seen the statement.
func NotSent(err error) bool { return notSent(err) }

// tellLostAnswer names what the error of a write that commits by itself leaves
// open, when the connection broke while GORM read its rows: the server may send
// them before it commits. Rows that the caller reads are an [answer].
func (r *Record) tellLostAnswer(db *gorm.DB) {
	if r.Txn == nil || !r.Txn.Autocommit || r.Txn.Foreign || r.few().runErr != nil || db.Error == nil || !lostAnswer(db.Error) {
		return
	}
	err := r.stages.outcomeError(autocommitOutcome(db.Error), db.Error)
	db.Error = err
	if result := db.Statement.Result; result != nil { // of the generic API
		result.Error = err
	}
}

// lostAnswer reports whether an error that came while rows were read is one of
// the server or of the connection, and not of our own side, such as a value that
// does not fit.
func lostAnswer(err error) bool {
	var network net.Error
	return sqlState(err) != "" || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, driver.ErrBadConn)
}

// notSent reports whether the server cannot have seen the statement.
func notSent(err error) bool {
	if errors.Is(err, pgconn.ErrConnClosed) {
		// pgx gives it, and calls it safe to retry, also for a connection that was
		// lost while it waited for the answer by the simple protocol, as of COMMIT.
		// Its stdlib makes driver.ErrBadConn of it, which therefore proves nothing.
		return false
	}
	var dial *pgconn.ConnectError
	return pgconn.SafeToRetry(err) || errors.As(err, &dial)
}

// refusedByServer reports whether the server answered that the statement failed
// and will go on: not when it was about to die, or did not know itself.
func refusedByServer(err error) bool {
	state := sqlState(err)
	switch {
	case len(state) != 5, state == "40003": // statement_completion_unknown
		return false
	case state == "57014": // query_canceled: an ordinary error
		return true
	}
	switch state[:2] {
	case "08", "57", "58", "53", "XX", "F0":
		return false
	}
	return true
}

package slowlog

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"gorm.io/gorm"
)

// errorClass says what kind of error err is. The text of an error may hold
// values: 'duplicate key value: Key (email)=(bob@example.com)'.
func errorClass(err error) string {
	if err == nil {
		return ""
	}
	if state := sqlState(err); state != "" {
		return state
	}
	for _, k := range errorKinds {
		if errors.Is(err, k.err) {
			return k.class
		}
	}
	var network net.Error
	if errors.As(err, &network) {
		return "connection"
	}
	return "other"
}

var errorKinds = []struct {
	err   error
	class string
}{
	{context.Canceled, "canceled"},
	{context.DeadlineExceeded, "timeout"},
	{gorm.ErrRecordNotFound, "not_found"},
	{sql.ErrNoRows, "not_found"},
	{gorm.ErrDuplicatedKey, "duplicate_key"},
	{gorm.ErrForeignKeyViolated, "foreign_key"},
	{gorm.ErrCheckConstraintViolated, "check"},
	{driver.ErrBadConn, "connection"},
	{sql.ErrConnDone, "connection"},
	{io.ErrUnexpectedEOF, "connection"},
	{io.EOF, "connection"},
	{net.ErrClosed, "connection"},
}

// sqlState returns the five characters of a server's error, or "".
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) && len(e.SQLState()) == 5 {
		return e.SQLState()
	}
	return ""
}

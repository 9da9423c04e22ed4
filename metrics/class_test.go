package metrics

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
)

func TestErrorsAreClassedByWhatToDoAboutThem(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return &pgconn.PgError{Code: code} }
	tests := []struct {
		err  error
		want class
	}{
		{nil, classNone},
		{gorm.ErrRecordNotFound, classNone},
		{sql.ErrNoRows, classNone},
		{context.Canceled, classCanceled},
		{context.DeadlineExceeded, classTimeout},
		{os.ErrDeadlineExceeded, classTimeout},
		{state("57014"), classTimeout},
		{errors.Join(context.Canceled, state("57014")), classCanceled},
		{driver.ErrBadConn, classConnection},
		{sql.ErrConnDone, classConnection},
		{io.EOF, classConnection},
		{io.ErrUnexpectedEOF, classConnection},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, classConnection},
		{&net.DNSError{IsTimeout: true}, classTimeout},
		{state("08006"), classConnection},
		{state("57P01"), classConnection},
		{state("57P03"), classConnection},
		{state("23505"), classConstraint},
		{gorm.ErrDuplicatedKey, classConstraint},
		{gorm.ErrForeignKeyViolated, classConstraint},
		{gorm.ErrCheckConstraintViolated, classConstraint},
		{state("40001"), classConflict},
		{state("40P01"), classConflict},
		{state("55P03"), classConflict},
		{state("25006"), classReadOnly},
		{state("25P02"), classTransaction},
		{sql.ErrTxDone, classTransaction},
		{gorm.ErrInvalidTransaction, classTransaction},
		{state("42P01"), classStatement},
		{state("42501"), classStatement},
		{state("22P02"), classStatement},
		{state("53300"), classServer},
		{state("XX000"), classServer},
		{state("P0001"), classOther},
		{state(""), classOther},
		{errors.New("something else"), classOther},
	}
	for _, tt := range tests {
		if got := classOf(tt.err); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, classNames[got], classNames[tt.want])
		}
		if tt.err != nil {
			if got := classOf(fmt.Errorf("wrapped: %w", tt.err)); got != tt.want {
				t.Errorf("wrapped %v: %s, want %s", tt.err, classNames[got], classNames[tt.want])
			}
		}
	}
	for c, name := range classNames {
		if name == "" {
			t.Errorf("class %d has no name", c)
		}
	}
}

package replay

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
)

// Live is a Source that reads a live result, row by row, and closes it with
// itself.
type Live struct {
	rows *sql.Rows
	cols []Column
	vals []any
	ptrs []any
	more bool // rows stands before the next result already
}

var (
	_ Source  = (*Live)(nil)
	_ Results = (*Live)(nil)
)

// FromRows makes a Source of a live result. It lets a *sql.Row be made of a
// *sql.Rows, and what a driver tells be looked at on its way. After an error the
// result is closed.
func FromRows(live *sql.Rows) (*Live, error) {
	s := &Live{rows: live}
	if err := s.describe(); err != nil {
		return nil, errors.Join(err, live.Close())
	}
	return s, nil
}

func (s *Live) describe() error {
	cols, err := Describe(s.rows)
	if err != nil {
		return err
	}
	s.cols, s.vals, s.ptrs = cols, make([]any, len(cols)), make([]any, len(cols))
	for i := range s.vals {
		s.ptrs[i] = &s.vals[i]
	}
	return nil
}

// Columns implements Source.
func (s *Live) Columns() []Column { return s.cols }

// Close implements Source.
func (s *Live) Close() error { return s.rows.Close() }

// Next implements Source.
func (s *Live) Next(dest []driver.Value) error {
	if s.more {
		return io.EOF
	}
	if !s.rows.Next() {
		if err := s.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	if err := s.rows.Scan(s.ptrs...); err != nil {
		return err
	}
	for i, v := range s.vals {
		dest[i] = v
	}
	return nil
}

// More implements Results.
func (s *Live) More() bool {
	s.more = s.more || s.rows.NextResultSet()
	return s.more
}

// NextResult implements Results.
func (s *Live) NextResult() error {
	if !s.More() {
		if err := s.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	s.more = false
	return s.describe()
}

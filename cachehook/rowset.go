package cachehook

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"time"

	"github.com/gorminfra/infra/internal/replay"
)

// rowset is a complete result in driver values: int64, float64, bool, string,
// []byte, time.Time and nil, row after row as a payload writes them. It is
// immutable once recorded, so that goroutines may share it.
type rowset struct {
	cols   *columns
	values string // see appendValue
	rows   int32
	mixed  bool // statements with other destinations ask for them
}

// bytes is what the rows hold in memory.
func (s *rowset) bytes() int { return 48 + rounded(len(s.values)) + s.cols.bytes() }

// nullsOf tells which values of the first row are NULL; nil: none is.
func nullsOf(values string, columns int) (null []bool) {
	d := decoder{s: values}
	for i := range columns {
		if d.skipValue() == tagNil {
			if null == nil {
				null = make([]bool, columns)
			}
			null[i] = true
		}
	}
	return null
}

// reader gives the rows to package replay. Each gets byte slices of its own: a
// Scanner may keep or change what it is given.
type reader struct {
	set  *rowset
	rest decoder
	at   int32
}

func newReader(set *rowset) reader { return reader{set: set, rest: decoder{s: set.values}} }

func (r *reader) Columns() []replay.Column { return r.set.cols.list }
func (r *reader) Close() error             { return nil }

func (r *reader) Next(dest []driver.Value) error {
	if !r.next(dest) {
		return io.EOF
	}
	return nil
}

func (r *reader) next(dest []driver.Value) bool {
	if r.at >= r.set.rows {
		return false
	}
	r.at++
	for i := range r.set.cols.list {
		dest[i] = r.rest.value()
	}
	return true
}

func isDriverValue(v any) bool {
	switch v := v.(type) {
	case nil, int64, float64, bool, string, []byte:
		return true
	case time.Time:
		if v.Location() == time.UTC || v.Location() == time.Local {
			return true
		}
		_, offset := v.Zone()
		return offset >= -maxOffset && offset <= maxOffset
	}
	return false
}

// remainder reads what record has read, and then the rest of the live result.
type remainder struct {
	reader
	odd    []any // the next row, if it has been read already
	live   *sql.Rows
	row    []any
	ptrs   []any
	read   int64
	err    error
	closed func(rows int64, err error)
}

func newRemainder(set *rowset, odd []any, live *sql.Rows, closed func(int64, error)) *remainder {
	r := &remainder{reader: newReader(set), odd: odd, live: live, closed: closed}
	r.row, r.ptrs = make([]any, len(set.cols.list)), make([]any, len(set.cols.list))
	for i := range r.row {
		r.ptrs[i] = &r.row[i]
	}
	return r
}

func (r *remainder) Next(dest []driver.Value) error {
	if r.next(dest) {
		r.read++
		return nil
	}
	if r.odd != nil {
		for i, v := range r.odd {
			dest[i] = v
		}
		r.read++
		r.odd = nil
		return nil
	}
	if !r.live.Next() {
		if r.err = r.live.Err(); r.err != nil {
			return r.err
		}
		return io.EOF
	}
	if r.err = r.live.Scan(r.ptrs...); r.err != nil {
		return r.err
	}
	for i, v := range r.row {
		dest[i] = v
	}
	r.read++
	return nil
}

func (r *remainder) Close() error {
	err := r.live.Close()
	r.closed(r.read, errors.Join(r.err, err))
	return err
}

var (
	_ replay.Source = (*reader)(nil)
	_ replay.Source = (*remainder)(nil)
)

package cachehook

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"time"

	"github.com/gorminfra/infra/internal/replay"
)

// rowset is a complete result in driver values: int64, float64, bool, string,
// []byte, time.Time and nil. It is immutable once recorded, so that goroutines
// may share it.
type rowset struct {
	cols   []replay.Column
	values []driver.Value // row after row
	rows   int
	bytes  int
	typed  *snapshot // nil until a hit has been scanned
}

// valueBytes estimates what a value holds in memory beside its 16 bytes.
func valueBytes(v driver.Value) int {
	switch v := v.(type) {
	case string:
		return 16 + 16 + len(v)
	case []byte:
		return 16 + 24 + len(v)
	case time.Time:
		return 16 + 24
	case int64, float64:
		return 16 + 8
	}
	return 16
}

// reader gives the rows to package replay. Byte slices are cloned: a Scanner
// may keep or change what it is given.
type reader struct {
	set *rowset
	at  int
}

func (r *reader) Columns() []replay.Column { return r.set.cols }
func (r *reader) Close() error             { return nil }

func (r *reader) Next(dest []driver.Value) error {
	if !r.next(dest) {
		return io.EOF
	}
	return nil
}

func (r *reader) next(dest []driver.Value) bool {
	n := len(r.set.cols)
	if r.at >= r.set.rows {
		return false
	}
	row := r.set.values[r.at*n : r.at*n+n]
	r.at++
	for i, v := range row {
		if b, ok := v.([]byte); ok {
			v = bytes.Clone(b)
		}
		dest[i] = v
	}
	return true
}

// errUnstorable ends a recording that cannot be kept: too large, or with a
// value that is none of the driver's kinds.
var errUnstorable = errors.New("cachehook: result cannot be stored")

// record reads a live result to its end and closes it. With errUnstorable the
// result is still open: the set holds the rows that were read.
func record(live *sql.Rows, maxBytes int) (*rowset, error) {
	cols, err := replay.Describe(live)
	if err != nil {
		return nil, errors.Join(err, live.Close())
	}
	set := &rowset{cols: cols, bytes: 96 * len(cols)}
	row, ptrs := make([]any, len(cols)), make([]any, len(cols))
	for i := range row {
		ptrs[i] = &row[i] // *any: a RawBytes would forbid the second Scan
	}
	for live.Next() {
		if err := live.Scan(ptrs...); err != nil {
			return nil, errors.Join(err, live.Close())
		}
		storable := true
		for _, v := range row {
			storable = storable && isDriverValue(v)
			set.bytes += valueBytes(v)
			set.values = append(set.values, v)
		}
		set.rows++
		if !storable || set.bytes > maxBytes {
			return set, errUnstorable
		}
	}
	if err := errors.Join(live.Err(), live.Close()); err != nil {
		return nil, err
	}
	set.values = set.values[:len(set.values):len(set.values)]
	return set, nil
}

func isDriverValue(v any) bool {
	switch v.(type) {
	case nil, int64, float64, bool, string, []byte, time.Time:
		return true
	}
	return false
}

// remainder reads what record has read, and then the rest of the live result.
type remainder struct {
	reader
	live   *sql.Rows
	row    []any
	ptrs   []any
	read   int64
	err    error
	closed func(rows int64, err error)
}

func newRemainder(set *rowset, live *sql.Rows, closed func(int64, error)) *remainder {
	r := &remainder{reader: reader{set: set}, live: live, closed: closed}
	r.row, r.ptrs = make([]any, len(set.cols)), make([]any, len(set.cols))
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

package cachehook

import (
	"database/sql"
	"errors"
	"slices"
	"sync"

	"github.com/gorminfra/infra/internal/replay"
)

// errUnstorable ends a recording that cannot be kept: too large, or with a
// value that is none of the driver's kinds.
var errUnstorable = errors.New("cachehook: result cannot be stored")

// recorded is a live result that has been read: as rows, as models, or as both.
type recorded struct {
	set    *rowset
	models *snapshot
	rows   int   // that were read
	odd    []any // with errUnstorable: one row more, which the set cannot hold
}

// recording is the room that a result is read into. It is used again.
type recording struct {
	values    []byte
	row, ptrs []any
}

var recordings = sync.Pool{New: func() any { return &recording{values: make([]byte, 0, 4096)} }}

func (m *recording) release() {
	clear(m.row)
	if cap(m.values) <= 1<<16 && cap(m.row) <= 256 {
		recordings.Put(m)
	}
}

// columns makes room for rows of n values.
func (m *recording) columns(n int) {
	m.values = m.values[:0]
	for len(m.row) < n {
		m.row = append(m.row, nil)
	}
	m.row = m.row[:n]
	m.ptrs = m.ptrs[:0]
	for i := range m.row {
		m.ptrs = append(m.ptrs, &m.row[i]) // *any: a RawBytes would forbid the second Scan
	}
}

// record reads a live result to its end and closes it: into models of the shape, if
// one is wanted and they can be read without GORM, and else, or with alsoRows, as
// rows. With errUnstorable the result is still open, and its set holds the rows that
// were read.
func record(live *sql.Rows, maxBytes int, want shape, alsoRows bool) (got recorded, err error) {
	names, err := live.Columns()
	if err != nil {
		return got, errors.Join(err, live.Close())
	}
	var l *layout
	if want.schema != nil {
		l = layoutNamed(want.schema, names)
	}
	// What database/sql tells of columns takes as much to make as a small result, and
	// a single model shows with its first row whether it can be had without.
	single := l != nil && !want.list && !alsoRows
	if !single {
		if got.set, err = describe(live); err != nil {
			return got, err
		}
	}
	room := recordings.Get().(*recording)
	defer room.release()
	room.columns(len(names))
	for live.Next() {
		if err := live.Scan(room.ptrs...); err != nil {
			return got, errors.Join(err, live.Close())
		}
		odd := slices.ContainsFunc(room.row, func(v any) bool { return !isDriverValue(v) })
		if !odd {
			for _, v := range room.row {
				room.values = appendValue(room.values, v)
			}
			got.rows++
		}
		if single && got.rows == 1 {
			got.models = want.read(l, lent(room.values), 1)
			single = got.models != unfit
		}
		tooLarge := len(room.values) > maxBytes || got.set != nil && len(room.values)+got.set.cols.bytes() > maxBytes
		if got.set == nil && (!single || odd || tooLarge) {
			l, got.models = nil, nil
			if got.set, err = describe(live); err != nil {
				return got, err
			}
		}
		if odd || tooLarge {
			got.set.keep(room.values, got.rows)
			if odd {
				got.odd = slices.Clone(room.row)
			}
			return got, errUnstorable
		}
	}
	if err := errors.Join(live.Err(), live.Close()); err != nil {
		return recorded{}, err
	}
	if l != nil && got.models == nil {
		if got.models = want.read(l, lent(room.values), got.rows); got.models == unfit {
			got.models = nil
		}
	}
	switch {
	case got.models == nil || alsoRows:
		got.set.keep(room.values, got.rows)
	default:
		got.set = nil
	}
	return got, nil
}

// describe makes an empty set of the result's columns, or closes it.
func describe(live *sql.Rows) (*rowset, error) {
	cols, err := replay.Describe(live)
	if err != nil {
		return nil, errors.Join(err, live.Close())
	}
	return &rowset{cols: columnsFor(cols)}, nil
}

// keep makes the rows the set's own.
func (s *rowset) keep(values []byte, rows int) { s.values, s.rows = string(values), int32(rows) }

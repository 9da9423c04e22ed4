package cachehook

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/gorminfra/infra/internal/replay"
)

// columns describes a result. All results whose columns are the same share one,
// for what it holds would outweigh a row.
type columns struct {
	list []replay.Column
	code string // as a payload writes them, or "" where it cannot
}

// columnLists are the columns in use: of two with one place the last.
var columnLists [512]atomic.Pointer[columns]

// columnsFor returns the shared description of what a driver has described.
func columnsFor(list []replay.Column) *columns {
	var room [512]byte
	code, ok := appendColumns(room[:0], list)
	if !ok {
		return &columns{list: list}
	}
	slot := &columnLists[xxhash.Sum64(code)%uint64(len(columnLists))]
	if shared := slot.Load(); shared != nil && shared.code == string(code) {
		return shared
	}
	c := &columns{list, string(code)}
	slot.Store(c)
	return c
}

// bytes is what the columns hold where nobody shares them.
func (c *columns) bytes() int {
	if c.code != "" {
		return 0
	}
	return 96 * len(c.list)
}

// appendColumns returns false when a column's type has no code.
func appendColumns(b []byte, list []replay.Column) ([]byte, bool) {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		c := &list[i]
		code, ok := scanTypeCode(c.ScanType)
		if !ok {
			return nil, false
		}
		b = appendString(b, c.Name)
		b = appendString(b, c.DatabaseTypeName)
		b = append(b, code, flags(c.HasLength, c.HasPrecision, c.Nullable, c.HasNullable))
		b = binary.AppendVarint(b, c.Length)
		b = binary.AppendVarint(b, c.Precision)
		b = binary.AppendVarint(b, c.Scale)
	}
	return b, true
}

// columns reads what appendColumns has written. What it returns does not keep
// the payload.
func (d *decoder) columns() *columns {
	at := *d
	for range d.count(7) {
		d.string()
		d.string()
		d.scanType()
		d.byte()
		d.varint()
		d.varint()
		d.varint()
	}
	if d.failed {
		return &columns{}
	}
	code := at.s[:len(at.s)-len(d.s)]
	slot := &columnLists[xxhash.Sum64String(code)%uint64(len(columnLists))]
	if shared := slot.Load(); shared != nil && shared.code == code {
		return shared
	}
	own := decoder{s: string([]byte(code))}
	c := &columns{code: own.s, list: make([]replay.Column, own.count(7))}
	for i := range c.list {
		col := &c.list[i]
		col.Name, col.DatabaseTypeName = own.string(), own.string()
		col.ScanType = own.scanType()
		f := own.byte()
		col.HasLength, col.HasPrecision, col.Nullable, col.HasNullable = f&1 != 0, f&2 != 0, f&4 != 0, f&8 != 0
		col.Length, col.Precision, col.Scale = own.varint(), own.varint(), own.varint()
	}
	slot.Store(c)
	return c
}

package cachehook

import (
	"database/sql/driver"
	"encoding/binary"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A payload in L2 is
//
//	magic   4 bytes "gic" and the version
//	sum     8 bytes, xxhash64 of what follows, little endian
//	kind    1 byte: rows or blob, and whether the body is compressed
//	tags    count, then each name and its stamp of 16 bytes
//	cost    what reading it from the database took, microseconds
//	body    rows or blob
//
// Numbers are unsigned varints, int64 values zigzag; strings are led by their
// length. A reader of another version, a truncated or a foreign payload sees an
// error, which counts as a miss.
const (
	magic      = "gic\x02"
	headerSize = len(magic) + 8

	kindRows byte = 1
	kindBlob byte = 2
)

// payload is what is stored in L2 for one key.
type payload struct {
	kind   byte
	tags   []string
	stamps []stamp
	cost   uint32  // see entry
	rows   *rowset // kindRows
	blob   []byte  // kindBlob
}

// encode returns false when a column's type has no code: the rows then live in
// L1 alone. A body of more than compressAbove bytes is compressed, if that helps;
// negative: none is.
func (p *payload) encode(compressAbove int) ([]byte, bool) {
	size := headerSize + 64 + 48*len(p.tags) + len(p.blob)
	if p.rows != nil {
		size += len(p.rows.cols.code) + len(p.rows.values)
	}
	b := append(make([]byte, headerSize, size), p.kind)
	b = binary.AppendUvarint(b, uint64(len(p.tags)))
	for i, tag := range p.tags {
		b = appendString(b, tag)
		b = append(b, p.stamps[i][:]...)
	}
	b = binary.AppendUvarint(b, uint64(p.cost))
	body := len(b)
	if p.kind == kindBlob {
		b = append(b, p.blob...)
	} else {
		var ok bool
		if b, ok = appendRows(b, p.rows); !ok {
			return nil, false
		}
	}
	if compressAbove >= 0 && len(b)-body > compressAbove {
		if small, ok := compress(b[body:]); ok {
			b = append(b[:body], small...)
			b[headerSize] |= compressedFlag
		}
	}
	putHeader(b)
	return b, true
}

// putHeader fills the header's place in front of the body.
func putHeader(b []byte) {
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[len(magic):], xxhash.Sum64(b[headerSize:]))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendRows(b []byte, set *rowset) ([]byte, bool) {
	if set.cols.code == "" {
		return nil, false
	}
	b = append(b, set.cols.code...)
	b = binary.AppendUvarint(b, uint64(set.rows))
	return append(b, set.values...), true
}

func flags(bits ...bool) (f byte) {
	for i, set := range bits {
		if set {
			f |= 1 << i
		}
	}
	return f
}

// The kinds of a value.
const (
	tagNil byte = iota
	tagInt
	tagFloat
	tagFalse
	tagTrue
	tagString
	tagBytes
	tagTime
)

func appendValue(b []byte, v driver.Value) []byte {
	switch v := v.(type) {
	case int64:
		return binary.AppendVarint(append(b, tagInt), v)
	case float64:
		return binary.LittleEndian.AppendUint64(append(b, tagFloat), math.Float64bits(v))
	case bool:
		return append(b, tagFalse+flags(v))
	case string:
		return appendString(append(b, tagString), v)
	case []byte:
		b = binary.AppendUvarint(append(b, tagBytes), uint64(len(v)))
		return append(b, v...)
	case time.Time:
		return appendTime(append(b, tagTime), v)
	}
	return append(b, tagNil)
}

// The kinds of a location. A local time is local wherever it is read, as the
// database's driver would give it there.
const (
	zoneUTC byte = iota
	zoneLocal
	zoneNamed
)

func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix())
	b = binary.AppendUvarint(b, uint64(t.Nanosecond()))
	switch t.Location() {
	case time.UTC:
		return append(b, zoneUTC)
	case time.Local:
		return append(b, zoneLocal)
	}
	name, offset := t.Location().String(), 0
	if _, o := t.Zone(); o != 0 {
		offset = o
	}
	b = appendString(append(b, zoneNamed), name)
	return binary.AppendVarint(b, int64(offset))
}

// decode reads a payload. It never panics; what it allocates is bounded by the
// payload's length. The result keeps data, which nobody may write to any more.
func decode(data []byte) (*payload, error) {
	switch {
	case len(data) < len(magic) || string(data[:len(magic)-1]) != magic[:len(magic)-1]:
		return nil, errCorruptForeign
	case data[len(magic)-1] != magic[len(magic)-1]:
		return nil, errCorruptVersion
	case len(data) <= headerSize || binary.LittleEndian.Uint64(data[len(magic):]) != xxhash.Sum64(data[headerSize:]):
		return nil, errCorruptChecksum
	}
	d := &decoder{s: lent(data[headerSize:])}
	kind := d.byte()
	p := &payload{kind: kind &^ compressedFlag}
	n := d.count(1 + len(stamp{}))
	p.tags, p.stamps = make([]string, n), make([]stamp, n)
	for i := range n {
		p.tags[i] = d.string()
		p.stamps[i], _ = stampOf(d.take(len(stamp{})))
	}
	p.cost = uint32(min(d.uvarint(), math.MaxUint32))
	if kind&compressedFlag != 0 {
		d.inflate()
	}
	switch p.kind {
	case kindBlob:
		p.blob = []byte(d.take(len(d.s)))
	case kindRows:
		p.rows = d.rows()
	default:
		d.failed = true
	}
	if d.failed || len(d.s) != 0 {
		return nil, errCorruptStructure
	}
	return p, nil
}

func (d *decoder) rows() *rowset {
	set := &rowset{cols: d.columns()}
	n := len(set.cols.list)
	if n == 0 {
		set.rows = int32(min(d.uvarint(), math.MaxInt32)) // rows without columns take no space
		return set
	}
	rows := d.count(n)
	if rows > math.MaxInt32 {
		d.fail()
	}
	set.rows, set.values = int32(rows), d.s
	for range rows * n {
		d.skipValue()
		if d.failed {
			break
		}
	}
	return set
}

package cachehook

import (
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"sync"
	"time"
)

// decoder reads a payload's body from the front of s. After the first fault it
// returns zero values, so that callers check once, at the end.
type decoder struct {
	s      string
	failed bool
}

func (d *decoder) fail() {
	d.failed, d.s = true, ""
}

func (d *decoder) take(n int) string {
	if n < 0 || n > len(d.s) {
		d.fail()
		return ""
	}
	part := d.s[:n]
	d.s = d.s[n:]
	return part
}

func (d *decoder) byte() byte {
	if len(d.s) == 0 {
		d.fail()
		return 0
	}
	c := d.s[0]
	d.s = d.s[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	if s := d.s; len(s) > 0 && s[0] < 0x80 { // as most are
		d.s = s[1:]
		return uint64(s[0])
	}
	return d.longUvarint()
}

func (d *decoder) longUvarint() uint64 {
	var v uint64
	for i := range min(len(d.s), binary.MaxVarintLen64) {
		c := d.s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			return v
		}
	}
	d.fail()
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads the number of things that follow, each at least size bytes long.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.s)/max(size, 1)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.s)) {
		d.fail()
		return ""
	}
	part := d.s[:n]
	d.s = d.s[n:]
	return part
}

func (d *decoder) value() driver.Value {
	switch d.byte() {
	case tagNil:
		return nil
	case tagInt:
		return d.varint()
	case tagFloat:
		return d.float()
	case tagFalse:
		return false
	case tagTrue:
		return true
	case tagString:
		return d.string()
	case tagBytes:
		return []byte(d.string())
	case tagTime:
		return d.time()
	}
	d.fail()
	return nil
}

func (d *decoder) float() float64 {
	b := d.take(8)
	if d.failed {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64([]byte(b)))
}

// skipValue passes over a value, with every check that value makes, and returns
// its kind.
func (d *decoder) skipValue() (kind byte) {
	kind = d.byte()
	switch kind {
	case tagNil, tagFalse, tagTrue:
	case tagInt:
		d.uvarint()
	case tagFloat:
		d.take(8)
	case tagString, tagBytes:
		d.string()
	case tagTime:
		d.varint()
		if d.uvarint() >= uint64(time.Second) {
			d.fail()
		}
		d.skipZone()
	default:
		d.fail()
	}
	return kind
}

func (d *decoder) skipZone() {
	switch d.byte() {
	case zoneUTC, zoneLocal:
	case zoneNamed:
		d.string()
		if offset := d.varint(); offset < -maxOffset || offset > maxOffset {
			d.fail()
		}
	default:
		d.fail()
	}
}

const maxOffset = 26 * 3600 // seconds

func (d *decoder) time() time.Time {
	sec, nsec := d.varint(), d.uvarint()
	if nsec >= uint64(time.Second) {
		d.fail()
		return time.Time{}
	}
	t := time.Unix(sec, int64(nsec))
	switch d.byte() {
	case zoneUTC:
		return t.UTC()
	case zoneLocal:
		return t
	case zoneNamed:
		name, offset := d.string(), d.varint()
		if offset < -maxOffset || offset > maxOffset {
			d.fail()
			return time.Time{}
		}
		return t.In(zone(name, int(offset), t))
	}
	d.fail()
	return time.Time{}
}

// zone finds the location of a time again: by name if this machine's rules give
// the same offset, else one of that name with the offset fixed.
func zone(name string, offset int, at time.Time) *time.Location {
	if name != "" && name != "Local" && name != "UTC" {
		if loc := namedZone(name); loc != nil {
			if _, o := at.In(loc).Zone(); o == offset {
				return loc
			}
		}
	}
	return time.FixedZone(name, offset)
}

// zones are the locations that were asked for, by name: reading one takes as long
// as a round trip. The names come from databases; there are no more than a few.
var zones struct {
	sync.RWMutex // guards known
	known        map[string]*time.Location
}

const maxZones = 1000

// namedZone returns nil if this machine does not know the name.
func namedZone(name string) *time.Location {
	zones.RLock()
	loc, ok := zones.known[name]
	zones.RUnlock()
	if ok {
		return loc
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		loc = nil
	}
	zones.Lock()
	defer zones.Unlock()
	if zones.known == nil || len(zones.known) >= maxZones {
		zones.known = make(map[string]*time.Location)
	}
	zones.known[strings.Clone(name)] = loc
	return loc
}

// scanTypes are the types that drivers report for their columns. The index is
// the code in a payload: append only.
var scanTypes = []reflect.Type{
	nil,
	reflect.TypeFor[any](),
	reflect.TypeFor[int64](),
	reflect.TypeFor[int32](),
	reflect.TypeFor[int16](),
	reflect.TypeFor[int8](),
	reflect.TypeFor[int](),
	reflect.TypeFor[uint64](),
	reflect.TypeFor[uint32](),
	reflect.TypeFor[uint16](),
	reflect.TypeFor[uint8](),
	reflect.TypeFor[float64](),
	reflect.TypeFor[float32](),
	reflect.TypeFor[bool](),
	reflect.TypeFor[string](),
	reflect.TypeFor[[]byte](),
	reflect.TypeFor[sql.RawBytes](),
	reflect.TypeFor[time.Time](),
	reflect.TypeFor[sql.NullString](),
	reflect.TypeFor[sql.NullInt64](),
	reflect.TypeFor[sql.NullInt32](),
	reflect.TypeFor[sql.NullInt16](),
	reflect.TypeFor[sql.NullByte](),
	reflect.TypeFor[sql.NullFloat64](),
	reflect.TypeFor[sql.NullBool](),
	reflect.TypeFor[sql.NullTime](),
}

var scanTypeCodes = func() map[reflect.Type]byte {
	m := make(map[reflect.Type]byte, len(scanTypes))
	for i, t := range scanTypes {
		m[t] = byte(i)
	}
	return m
}()

func scanTypeCode(t reflect.Type) (byte, bool) {
	code, ok := scanTypeCodes[t]
	return code, ok
}

func (d *decoder) scanType() reflect.Type {
	code := d.byte()
	if int(code) >= len(scanTypes) {
		d.fail()
		return nil
	}
	return scanTypes[code]
}

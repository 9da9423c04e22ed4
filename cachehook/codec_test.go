package cachehook

import (
	"bytes"
	"database/sql/driver"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/replay"
)

func sampleRows(t testing.TB) *rowset {
	t.Helper()
	return rowsOf([]replay.Column{
		{Name: "a", DatabaseTypeName: "INT8", ScanType: reflect.TypeFor[int64]()},
		{Name: "b", DatabaseTypeName: "NUMERIC", ScanType: reflect.TypeFor[string](), Precision: 10, Scale: -2, HasPrecision: true, Length: math.MaxInt64, HasLength: true, Nullable: true, HasNullable: true},
	}, sampleValues(t))
}

// rowsOf makes a result of values, row after row.
func rowsOf(cols []replay.Column, values []driver.Value) *rowset {
	var b []byte
	for _, v := range values {
		b = appendValue(b, v)
	}
	return &rowset{cols: columnsFor(cols), values: string(b), rows: int32(len(values) / max(len(cols), 1))}
}

// valuesOf reads a result back.
func valuesOf(set *rowset) (values []driver.Value) {
	r := newReader(set)
	row := make([]driver.Value, len(set.cols.list))
	for r.next(row) {
		values = append(values, row...)
	}
	return values
}

func sampleValues(t testing.TB) []driver.Value {
	t.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	at := time.Date(2024, 10, 27, 0, 30, 0, 123456789, time.UTC)
	return []driver.Value{
		int64(math.MinInt64), "text\x00\xff", nil, []byte{0, 255}, 1.5, math.Inf(-1), true, false, "", []byte{},
		at, at.Local(), at.In(berlin), at.In(time.FixedZone("", 3600)), time.Time{}, at.In(time.FixedZone("X", -5*3600-17)),
	}
}

func TestPayloadRoundTrip(t *testing.T) {
	t.Parallel()
	p := &payload{kind: kindRows, tags: []string{"*", "table:x"}, stamps: []stamp{mint(), mint()}, rows: sampleRows(t)}
	data, ok := p.encode(-1)
	equal(t, "encodable", ok, true)
	got, err := decode(data)
	must(t, err)
	if !reflect.DeepEqual(got.tags, p.tags) || !reflect.DeepEqual(got.stamps, p.stamps) || !reflect.DeepEqual(got.rows.cols.list, p.rows.cols.list) {
		t.Fatalf("got %+v", got)
	}
	values := valuesOf(got.rows)
	for i, want := range sampleValues(t) {
		v := values[i]
		if w, ok := want.(time.Time); ok {
			g, ok := v.(time.Time)
			if !ok || !g.Equal(w) || g.Format(time.RFC3339Nano) != w.Format(time.RFC3339Nano) || g.Location().String() != w.Location().String() {
				t.Errorf("value %d: got %v, want %v", i, v, want)
			}
			continue
		}
		if !reflect.DeepEqual(v, want) {
			t.Errorf("value %d: got %#v, want %#v", i, v, want)
		}
	}
}

func TestEveryTruncationAndEveryFlippedByteIsCorrupt(t *testing.T) {
	t.Parallel()
	p := &payload{kind: kindRows, tags: []string{"*"}, stamps: []stamp{mint()}, rows: sampleRows(t)}
	data, _ := p.encode(-1)
	for n := range data {
		if _, err := decode(data[:n]); err == nil {
			t.Fatalf("the first %d bytes were taken for a payload", n)
		}
		damaged := bytes.Clone(data)
		damaged[n] ^= 0x40
		if _, err := decode(damaged); err == nil {
			t.Fatalf("byte %d was changed unnoticed", n)
		}
	}
}

func TestUnknownScanTypeStaysInMemory(t *testing.T) {
	t.Parallel()
	p := &payload{kind: kindRows, rows: rowsOf([]replay.Column{{Name: "a", ScanType: reflect.TypeFor[struct{ X int }]()}}, nil)}
	if _, ok := p.encode(-1); ok {
		t.Fatal("a type without a code was encoded")
	}
}

// seal puts a right header before a body.
func seal(body []byte) []byte {
	b := append(make([]byte, headerSize), body...)
	putHeader(b)
	return b
}

// FuzzDecode feeds bytes with a right checksum, so that the structure is reached.
func FuzzDecode(f *testing.F) {
	p := &payload{kind: kindRows, tags: []string{"*", "table:x"}, stamps: []stamp{mint(), mint()}, rows: sampleRows(f)}
	data, _ := p.encode(-1)
	f.Add(data[headerSize:])
	blob := &payload{kind: kindBlob, blob: bytes.Repeat([]byte("x"), 100)}
	data, _ = blob.encode(-1)
	f.Add(data[headerSize:])
	data, _ = blob.encode(0)
	f.Add(data[headerSize:])
	data, _ = p.encode(0)
	f.Add(data[headerSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = decode(body)
		p, err := decode(seal(body))
		if err != nil {
			return
		}
		again, ok := p.encode(-1)
		if !ok {
			t.Fatal("what was decoded cannot be encoded")
		}
		q, err := decode(again)
		if err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v", err)
		}
		third, _ := q.encode(-1)
		if !bytes.Equal(again, third) {
			t.Fatalf("the round trip changed the payload:\n%q\n%q", again, third)
		}
	})
}

package cachehook

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"math"
	"strings"
	"sync"
)

// compressedFlag in a payload's kind says that the body is led by its length and
// compressed with DEFLATE.
const compressedFlag byte = 0x80

// deflators are reused: one takes more than a megabyte.
var deflators = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // fails on unknown levels only
	return w
}}

// compress returns the body compressed, or false where that saves less than an
// eighth: reading it would cost more than it brings.
func compress(body []byte) ([]byte, bool) {
	most := len(body) - len(body)/8
	out := bytes.NewBuffer(make([]byte, 0, most))
	w := deflators.Get().(*flate.Writer)
	defer deflators.Put(w)
	w.Reset(out)
	if _, err := w.Write(body); err != nil || w.Close() != nil || out.Len() > most {
		return nil, false
	}
	return append(binary.AppendUvarint(nil, uint64(len(body))), out.Bytes()...), true
}

// DEFLATE makes at most 1032 bytes of one. What it claims to be beyond that is
// not believed.
const maxInflation = 1032

// inflate makes the rest of the payload what it was before it was compressed.
func (d *decoder) inflate() {
	n := d.uvarint()
	if n > uint64(len(d.s))*maxInflation || n > math.MaxInt32 {
		d.fail()
		return
	}
	var out strings.Builder
	out.Grow(int(n))
	r := flate.NewReader(strings.NewReader(d.s))
	defer r.Close() //nolint:errcheck // there is nothing to lose
	if copied, err := io.Copy(&out, io.LimitReader(r, int64(n)+1)); err != nil || copied != int64(n) {
		d.fail()
		return
	}
	d.s = out.String()
}

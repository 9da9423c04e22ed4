package cachehook

import (
	"context"
	"crypto/rand"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestPayloadIsCompressedWhereItIsLargeAndThatHelps(t *testing.T) {
	t.Parallel()
	random := make([]byte, 100_000)
	_, _ = rand.Read(random)
	text := []byte(strings.Repeat("all work and no play ", 5000))
	for _, test := range []struct {
		name       string
		blob       []byte
		above      int
		compressed bool
	}{
		{"large text", text, 1000, true},
		{"small text", text[:1000], 1000, false},
		{"just above", text[:1001], 1000, true},
		{"noise", random, 1000, false},
		{"off", text, -1, false},
		{"empty", nil, 0, false},
	} {
		p := &payload{kind: kindBlob, tags: []string{"*"}, stamps: []stamp{mint()}, cost: 1234, blob: test.blob}
		data, ok := p.encode(test.above)
		equal(t, test.name+": encoded", ok, true)
		equal(t, test.name+": compressed", data[headerSize]&compressedFlag != 0, test.compressed)
		if test.compressed && len(data) > len(test.blob)/2 {
			t.Errorf("%s: %d bytes of %d", test.name, len(data), len(test.blob))
		}
		got, err := decode(data)
		must(t, err)
		if string(got.blob) != string(test.blob) || got.cost != 1234 || !reflect.DeepEqual(got.stamps, p.stamps) {
			t.Errorf("%s: another payload came back", test.name)
		}
	}
}

// What claims to be much larger than it can be takes no memory.
func TestCompressedPayloadThatClaimsTooMuchIsCorrupt(t *testing.T) {
	t.Parallel()
	p := &payload{kind: kindBlob, blob: []byte(strings.Repeat("x", 10_000))}
	data, _ := p.encode(0)
	equal(t, "compressed", data[headerSize]&compressedFlag != 0, true)
	at := headerSize + 3 // kind, no tags, no cost, then the length in two bytes
	for _, length := range [][]byte{{0xff, 0xff, 0xff, 0xff, 0x7f}, {0x01}, {0x91, 0x4e}, {0x8f, 0x4e}} {
		damaged := resealed(data, func(b []byte) []byte {
			return append(append(b[:at-headerSize:at-headerSize], length...), b[at-headerSize+2:]...)
		})
		if _, err := decode(damaged); err == nil {
			t.Errorf("length % x was believed", length)
		}
	}
}

func TestLargeResultsAreCompressedInRedisAndReadByAll(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name, L2: L2{CompressAbove: 500}}
	other := cfg
	other.L2.CompressAbove = -1
	a, b := open(t, dsn, cfg), open(t, dsn, other)
	ready(t, a, b)
	all := func(i *instance) (ps []product) { must(t, i.Order("id").Find(&ps).Error); return ps }
	want := all(a)
	a.price(t, 1)
	var keys []string
	eventually(t, "the fills", 30*time.Second, func() bool {
		keys = keysOf(t, rdb, "infra:"+name+":cache:e:*")
		return len(keys) == 2
	})
	compressed := 0
	for _, key := range keys {
		data, err := rdb.Get(context.Background(), key).Bytes()
		must(t, err)
		if data[headerSize]&compressedFlag != 0 {
			compressed++
			if len(data) > 1000 {
				t.Errorf("%d bytes", len(data))
			}
		}
	}
	equal(t, "compressed: the large one", compressed, 1)
	if got := all(b); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	equal(t, "b's queries", b.seen.queries.Load(), 0)
}

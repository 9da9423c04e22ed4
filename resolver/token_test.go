package resolver

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"
	"time"
)

var (
	keyA = bytes.Repeat([]byte("a"), 32)
	keyB = bytes.Repeat([]byte("b"), 32)
	noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
)

func aToken() token {
	return token{
		system: 7711906672879098331, timeline: 3, lsn: 0x16_B374D848, boot: 1795568200757282,
		expires: noon.Add(time.Minute).Unix(),
	}
}

func TestR05TokenSurvivesTheTrip(t *testing.T) {
	t.Parallel()
	for _, want := range []token{aToken(), {primary: true, expires: noon.Unix() + 1}} {
		text := want.encode(keyA)
		if len(text) != 72 {
			t.Errorf("%d characters", len(text))
		}
		for _, keys := range [][][]byte{{keyA}, {keyB, keyA}} {
			if got, err := decodeToken(text, keys, noon); err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		}
	}
}

func TestR05TokenIsRefused(t *testing.T) {
	t.Parallel()
	good := aToken().encode(keyA)
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(change func(b []byte)) string {
		b := bytes.Clone(raw[:tokenBody])
		change(b)
		return base64.RawURLEncoding.EncodeToString(append(b, tokenSum(keyA, b)...))
	}
	for _, tt := range []struct {
		name, text string
		keys       [][]byte
		at         time.Time
		want       error
	}{
		{"good", good, [][]byte{keyA}, noon, nil},
		{"empty", "", [][]byte{keyA}, noon, errTokenForm},
		{"truncated", good[:71], [][]byte{keyA}, noon, errTokenForm},
		{"longer", good + "A", [][]byte{keyA}, noon, errTokenForm},
		{"not base64", "!" + good[1:], [][]byte{keyA}, noon, errTokenForm},
		{"another key's", good, [][]byte{keyB}, noon, errTokenForged},
		{"no keys", good, nil, noon, errTokenForged},
		{"last second", good, [][]byte{keyA}, noon.Add(59 * time.Second), nil},
		{"expired", good, [][]byte{keyA}, noon.Add(time.Minute), errTokenExpired},
		{"newer version", signed(func(b []byte) { b[0]++ }), [][]byte{keyA}, noon, errTokenVersion},
		{"unknown flag", signed(func(b []byte) { b[1] |= 2 }), [][]byte{keyA}, noon, errTokenVersion},
	} {
		if _, err := decodeToken(tt.text, tt.keys, tt.at); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	for i := range raw {
		b := bytes.Clone(raw)
		b[i] ^= 0x10
		if _, err := decodeToken(base64.RawURLEncoding.EncodeToString(b), [][]byte{keyA}, noon); !errors.Is(err, errTokenForged) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
}

func TestR05OfTwoTokensTheLargerCounts(t *testing.T) {
	t.Parallel()
	a := aToken()
	b := a
	b.lsn += 100
	var none *handed
	for _, order := range [][2]token{{a, b}, {b, a}} {
		if h := none.join(order[0]).join(order[1]); h.lsn != b.lsn || h.primary {
			t.Errorf("%+v", h)
		}
	}
	b.timeline++
	if h := none.join(a).join(b); !h.primary {
		t.Error("positions of two timelines were compared")
	}
	b = a
	b.primary = true
	if h := none.join(b).join(a); !h.primary {
		t.Error("the primary was forgotten")
	}
}

func FuzzDecodeToken(f *testing.F) {
	f.Add(aToken().encode(keyA))
	f.Add("")
	f.Add(encodeTokens([]token{aToken(), {part: 5, lsn: 1, expires: noon.Unix() + 60}}, keyB))
	f.Fuzz(func(t *testing.T, text string) {
		got, err := decodeTokens(text, [][]byte{keyA, keyB}, noon)
		if err == nil && encodeTokens(got, keyA) != text && encodeTokens(got, keyB) != text {
			t.Errorf("%q was read as %+v, which is written otherwise", text, got)
		}
		// Whatever is signed is read, and nothing else is.
		if got, err := decodeToken(token{lsn: uint64(len(text)), expires: noon.Unix() + 1}.encode(keyA), [][]byte{keyA}, noon); err != nil || got.lsn != uint64(len(text)) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func BenchmarkTokenEncode(b *testing.B) {
	b.ReportAllocs()
	t := aToken()
	for b.Loop() {
		_ = t.encode(keyA)
	}
}

func BenchmarkTokenDecode(b *testing.B) {
	b.ReportAllocs()
	text, keys := aToken().encode(keyA), [][]byte{keyA}
	for b.Loop() {
		if _, err := decodeToken(text, keys, noon); err != nil {
			b.Fatal(err)
		}
	}
}

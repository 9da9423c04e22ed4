package resolver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// token is what a session hands on to work elsewhere, so that it sees what the
// session wrote and does not go behind what it was shown. It says nothing of
// who the caller is, and gives no right to anything.
type token struct {
	// part is the database that it speaks of.
	part uint32
	// system and timeline name the history that lsn is a position of.
	system   uint64
	timeline uint32
	// lsn must have been replayed. It lies at or above all that was written and,
	// unless boot is set, all that was shown. 0: nothing.
	lsn uint64
	// boot is when the replica started that was read last, in microseconds of its
	// clock. It tells that run of that server from all others. 0: none.
	boot int64
	// expires is in seconds since 1970.
	expires int64
	// primary: the position could not be had. Until it expires only the primary
	// will do.
	primary bool
}

// The encoding is a version, flags, the fields with their high bytes first, and
// a MAC, all in base64url without padding: tokenLen bytes, 72 characters, of
// which none needs quoting in a cookie or a header.
const (
	tokenVersion = 1
	tokenPrimary = 1 << 0 // flag
	tokenBody    = 1 + 1 + 4 + 8 + 8 + 8 + 8
	// tokenMAC is half of SHA-256's length, the least that RFC 2104 allows.
	tokenMAC = sha256.Size / 2
	tokenLen = tokenBody + tokenMAC
)

// What is wrong with a token. Nobody but tests tells them apart: whoever brings
// such a one is sent to the primary.
var (
	errTokenForm    = errors.New("resolver: token is no token")
	errTokenVersion = errors.New("resolver: token is of another version")
	errTokenForged  = errors.New("resolver: token is not signed by us")
	errTokenExpired = errors.New("resolver: token has expired")
)

// encode signs the token.
func (t token) encode(key []byte) string {
	b := make([]byte, 0, tokenLen+sha256.Size)
	b = append(b, tokenVersion, 0)
	if t.primary {
		b[1] |= tokenPrimary
	}
	b = t.appendPlace(b)
	b = binary.BigEndian.AppendUint64(b, uint64(t.expires))
	b = append(b, tokenSum(key, b)...)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (t *token) appendPlace(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, t.timeline)
	b = binary.BigEndian.AppendUint64(b, t.system)
	b = binary.BigEndian.AppendUint64(b, t.lsn)
	return binary.BigEndian.AppendUint64(b, uint64(t.boot))
}

func (t *token) readPlace(b []byte) {
	t.timeline = binary.BigEndian.Uint32(b)
	t.system = binary.BigEndian.Uint64(b[4:])
	t.lsn = binary.BigEndian.Uint64(b[12:])
	t.boot = int64(binary.BigEndian.Uint64(b[20:]))
}

// tokenSum signs a body. The prefix keeps a key that is used for something else
// besides from signing tokens by accident.
func tokenSum(key, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("infra/resolver token\x00"))
	m.Write(body)
	return m.Sum(nil)[:tokenMAC]
}

// decodeToken reads a token that any of keys has signed. The version is looked
// at after the signature, which covers it.
func decodeToken(text string, keys [][]byte, now time.Time) (token, error) {
	if len(text) != base64.RawURLEncoding.EncodedLen(tokenLen) {
		return token{}, errTokenForm
	}
	body, err := openToken(text, keys)
	switch {
	case err != nil:
		return token{}, err
	case body[0] != tokenVersion || body[1]&^tokenPrimary != 0:
		return token{}, errTokenVersion
	}
	t := token{primary: body[1]&tokenPrimary != 0, expires: int64(binary.BigEndian.Uint64(body[30:]))}
	t.readPlace(body[2:])
	if now.Unix() >= t.expires {
		return token{}, errTokenExpired
	}
	return t, nil
}

// openToken returns the body of what any of keys has signed.
func openToken(text string, keys [][]byte) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) <= tokenMAC {
		return nil, errTokenForm
	}
	body, sum := b[:len(b)-tokenMAC], b[len(b)-tokenMAC:]
	known := false
	for _, key := range keys {
		known = hmac.Equal(sum, tokenSum(key, body)) || known
	}
	if !known {
		return nil, errTokenForged
	}
	return body, nil
}

// handed is what tokens told a session. It is immutable.
type handed struct {
	system   uint64
	timeline uint32
	lsn      uint64
	boot     int64 // of the one token there was, to see whether there is news
	expires  int64
	primary  bool
	shown    glimpse // by the runs of nodes that tokens named
}

// join adds another token. Of two positions of one history the larger one
// stands for both; those of two histories do not compare, and the primary has
// whatever there is of both.
func (h *handed) join(t token) *handed {
	next := &handed{system: t.system, timeline: t.timeline, lsn: t.lsn, boot: t.boot, expires: t.expires, primary: t.primary}
	if h == nil {
		return next
	}
	next.shown = h.shown
	next.primary = next.primary || h.primary || t.system != h.system || t.timeline != h.timeline
	next.lsn = max(next.lsn, h.lsn)
	if h.boot != t.boot {
		next.boot = 0
	}
	next.expires = min(next.expires, h.expires)
	return next
}

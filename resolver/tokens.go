package resolver

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/gorminfra/infra/internal/hook"
)

// Groups with a source of their own are databases of their own, whose positions
// do not compare with the main one's. What a session did there travels in the
// same text, one part for each database that it touched.

// A text of several parts is the version, the expiry, the parts, and a MAC. What
// speaks of the main database alone is a token by itself.
const (
	partsVersion = 2
	partsHead    = 1 + 8
	partLen      = 4 + 1 + 4 + 8 + 8 + 8
	// maxParts keeps the text below 800 characters. Who touched more databases is
	// sent to their primaries.
	maxParts = 16
)

// partOf says which database a token speaks of.
const (
	mainPart  uint32 = 0
	everyPart uint32 = 1<<32 - 1
)

// partOfGroup is the same in all processes that call the group so.
func partOfGroup(name string) uint32 {
	return min(max(uint32(xxhash.Sum64String(name)), mainPart+1), everyPart-1)
}

// encodeTokens signs what a session did in several databases.
func encodeTokens(parts []token, key []byte) string {
	if len(parts) > maxParts {
		parts = []token{{part: everyPart, primary: true, expires: parts[0].expires}}
	}
	if len(parts) == 1 && parts[0].part == mainPart {
		return parts[0].encode(key)
	}
	b := append(make([]byte, 0, partsHead+len(parts)*partLen+tokenMAC), partsVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(parts[0].expires))
	for _, t := range parts {
		b = binary.BigEndian.AppendUint32(b, t.part)
		flags := byte(0)
		if t.primary {
			flags = tokenPrimary
		}
		b = append(b, flags)
		b = t.appendPlace(b)
	}
	return base64.RawURLEncoding.EncodeToString(append(b, tokenSum(key, b)...))
}

// decodeTokens reads what encodeTokens wrote.
func decodeTokens(text string, keys [][]byte, now time.Time) ([]token, error) {
	if len(text) == base64.RawURLEncoding.EncodedLen(tokenLen) {
		t, err := decodeToken(text, keys, now)
		return []token{t}, err
	}
	size := base64.RawURLEncoding.DecodedLen(len(text)) - partsHead - tokenMAC
	if size <= 0 || size%partLen != 0 || size/partLen > maxParts {
		return nil, errTokenForm
	}
	b, err := openToken(text, keys)
	switch {
	case err != nil:
		return nil, err
	case b[0] != partsVersion:
		return nil, errTokenVersion
	}
	expires := int64(binary.BigEndian.Uint64(b[1:]))
	if now.Unix() >= expires {
		return nil, errTokenExpired
	}
	var parts []token
	for b := range slices.Chunk(b[partsHead:], partLen) {
		t := token{part: binary.BigEndian.Uint32(b), primary: b[4]&tokenPrimary != 0, expires: expires}
		if b[4]&^tokenPrimary != 0 {
			return nil, errTokenVersion
		}
		t.readPlace(b[5:])
		parts = append(parts, t)
	}
	return parts, nil
}

// tokensOf makes the parts of what sessions, one for each home, hand on; nil for
// one that has done nothing. It waits as tokenOf does, for all at once.
func (r *Resolver) tokensOf(ctx context.Context, sessions []*session) []token {
	made := make([]token, len(sessions))
	told := make([]bool, len(sessions))
	var wg sync.WaitGroup
	for i, home := range r.homes() {
		if s := sessions[i]; s != nil && len(sessions) > 1 {
			wg.Go(func() { made[i], told[i] = home.tokenOf(ctx, s) })
		} else if s != nil {
			made[i], told[i] = home.tokenOf(ctx, s)
		}
	}
	wg.Wait()
	var parts []token
	for i := range made {
		if told[i] {
			parts = append(parts, made[i])
			parts[len(parts)-1].expires = parts[0].expires
		}
	}
	return parts
}

// receiveAll takes the parts of a text into the sessions of ctx, one for each
// database that it speaks of.
func (r *Resolver) receiveAll(ctx context.Context, parts []token) {
	if r.off&tokenRule == 0 {
		r.arrived(ctx)
	}
	for _, home := range r.homes() {
		for _, t := range parts {
			if t.part == home.part || t.part == everyPart {
				if s := home.sessionAt(ctx); r.off&tokenRule == 0 {
					s.receive(t, home)
				}
			}
		}
	}
}

// longestLease is the longest time for which a cache trusts its memory.
const longestLease = time.Minute

// arrived notes that ctx's work has learned by a token what databases hold, so that
// no cache may answer it with what is from before.
func (r *Resolver) arrived(ctx context.Context) {
	if in := optionsOf(ctx).sessions; in != nil {
		in.arrived.Store(r.now())
		return
	}
	if s := openScope(ctx); s != nil {
		hook.Touch(s)
	}
}

// young reports whether a token has come into these sessions so lately that a
// cache could hold what is from before it.
func (in *sessions) young(now int64) bool {
	at := in.arrived.Load()
	return at != 0 && now-at < int64(longestLease)
}

package limithook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash/maphash"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// maxPlainID is the longest identity, in bytes, that goes into a key as it is.
// Longer ones are hashed, so that a key's size never depends on a client.
const maxPlainID = 64

// idSeed makes the choice of a shard unpredictable to whoever chooses identities.
var idSeed = maphash.MakeSeed()

// hashOf is for the choice of a shard.
func hashOf(key string) uint64 { return maphash.String(idSeed, key) }

// subject is whom a decision charges, made ready once per request.
type subject struct {
	id     string // as the caller gave it
	key    string // as it is stored; empty: no user
	hash   uint64 // of key
	known  bool   // an identity was given
	alone  bool   // charge the global limit alone
	bypass bool

	// What a store has for the key, so that further requests of one context need
	// not look for it: a hint, to be checked under the mutex of the shard.
	log     atomic.Pointer[idle]
	holding atomic.Pointer[holding]
}

type subjectKey struct{}

var (
	nobody    = &subject{}
	everybody = &subject{alone: true} // charged to the global limit alone
)

func subjectOf(ctx context.Context) *subject {
	if s, ok := ctx.Value(subjectKey{}).(*subject); ok {
		return s
	}
	return nobody
}

func newSubject(kind, id string) subject {
	key := kind + plain(id)
	return subject{id: id, key: key, hash: hashOf(key), known: true}
}

// WithUser says on whose behalf the statements run with the returned context
// are made. The last identity wins; a bypass set before stays.
//
// Any string is an identity. One that is empty, longer than 64 bytes, not
// valid UTF-8 or that holds braces, blanks or control characters is replaced
// by its hash wherever it is stored, so it can never name another key. A
// caller who is not known should not be given an identity at all: see
// [Config.Anonymous].
func WithUser(ctx context.Context, id string) context.Context {
	s := newSubject("u:", id)
	s.bypass = subjectOf(ctx).bypass
	return context.WithValue(ctx, subjectKey{}, &s)
}

// User returns the identity set by [WithUser].
func User(ctx context.Context) (id string, ok bool) {
	s := subjectOf(ctx)
	return s.id, s.known
}

// WithoutUser makes the statements of the returned context count against the
// global limit alone, not against a user nor against [Config.Anonymous]: for
// work that serves everybody, such as the refresh of a cache.
func WithoutUser(ctx context.Context) context.Context {
	return context.WithValue(ctx, subjectKey{}, &subject{alone: true, bypass: subjectOf(ctx).bypass})
}

// Bypass frees the statements of the returned context, and of all contexts
// derived from it, from every limit: for administrators and migrations. They
// are counted (see [Stats]) and charged to nobody.
func Bypass(ctx context.Context) context.Context {
	s := subjectOf(ctx)
	return context.WithValue(ctx, subjectKey{}, &subject{id: s.id, key: s.key, hash: s.hash, known: s.known, alone: s.alone, bypass: true})
}

// plain returns id where it is harmless as a part of a key and a hash of it
// otherwise. "#" marks a hash, so an identity that starts with it is hashed
// too and none can be made to meet another's hash.
func plain(id string) string {
	if id == "" || len(id) > maxPlainID || id[0] == '#' || !utf8.ValidString(id) {
		return "#" + digest(id, 16)
	}
	for _, r := range id {
		if r == '{' || r == '}' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return "#" + digest(id, 16)
		}
	}
	return id
}

// digest returns the first n bytes of SHA-256 in hexadecimal.
func digest(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:n])
}

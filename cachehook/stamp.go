package cachehook

import (
	"crypto/rand"
	"encoding/hex"
)

// stamp is the random value that a tag has between two writes. Stamps have no
// order and are never reused: after an eviction, a flush or a restart a tag gets
// one that no entry can carry, which counters and clocks do not give.
type stamp [16]byte

// mint makes a stamp. crypto/rand cannot fail.
func mint() (s stamp) {
	rand.Read(s[:])
	return s
}

// orEmpty is the stamp as it is stored, or nothing for none.
func (s stamp) orEmpty() string {
	if s == (stamp{}) {
		return ""
	}
	return string(s[:])
}

func (s stamp) String() string { return hex.EncodeToString(s[:]) }

// stampOf reads a stamp as it is stored; ok is false when it is none.
func stampOf(b string) (s stamp, ok bool) {
	return s, copy(s[:], b) == len(s) && len(b) == len(s)
}

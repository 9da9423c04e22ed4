package cachehook

import (
	"errors"
	"sync/atomic"
)

// errCorrupt is what every payload is that cannot be read, whatever the reason.
var errCorrupt = errors.New("cachehook: corrupt payload")

// corruption is the error of a payload that cannot be read, a number so that it can
// be counted by. It is a miss.
type corruption uint8

const (
	errCorruptForeign   corruption = iota // not ours
	errCorruptVersion                     // of another version of this package
	errCorruptChecksum                    // truncated or damaged
	errCorruptStructure                   // its checksum is right and it makes no sense
	errCorruptMismatch                    // it belongs to another query
	corruptions
)

var corruptionNames = [corruptions]string{"foreign", "version", "checksum", "structure", "mismatch"}

func (k corruption) Error() string { return errCorrupt.Error() + ": " + corruptionNames[k] }

func (k corruption) Is(target error) bool { return target == errCorrupt } //nolint:errorlint // a sentinel

// unreadable counts a payload that cannot be read.
func (c *counters) unreadable(err error) {
	kind := errCorruptStructure
	errors.As(err, &kind)
	c.corrupt[kind].Add(1)
}

// corrupted are the counters, by reason.
type corrupted [corruptions]atomic.Uint64

//go:build faulthooks

package resolver

import (
	"fmt"
	"os"
	"strings"
)

// rulesOff reads INFRA_TEST_DISABLE, in which token, page and monotonic name a rule
// each; stamp, mark, lsn and channel are the cache's. Only programs built with the
// tag faulthooks look at it.
func rulesOff() (off rules) {
	for name := range strings.SplitSeq(os.Getenv("INFRA_TEST_DISABLE"), ",") {
		switch strings.TrimSpace(name) {
		case "", "stamp", "mark", "lsn", "channel":
		case "token":
			off |= tokenRule
		case "page":
			off |= pageRule
		case "monotonic":
			off |= monotonicRule
		default:
			panic(fmt.Sprintf("resolver: INFRA_TEST_DISABLE names %q: there are token, page, monotonic, stamp, mark, lsn, channel", name))
		}
	}
	return off
}

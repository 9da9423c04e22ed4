//go:build faulthooks

package cachehook

import (
	"os"
	"strings"
)

// safeguardsOff reads INFRA_TEST_DISABLE, in which stamp, mark, lsn and channel
// name a safeguard each; other names are those of other packages. Only programs
// built with the tag faulthooks look at it.
func safeguardsOff() (off safeguards) {
	for name := range strings.SplitSeq(os.Getenv("INFRA_TEST_DISABLE"), ",") {
		switch strings.TrimSpace(name) {
		case "stamp":
			off |= stampSafeguard
		case "mark":
			off |= markSafeguard
		case "lsn":
			off |= lsnSafeguard
		case "channel":
			off |= channelSafeguard
		}
	}
	return off
}

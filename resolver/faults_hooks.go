//go:build faulthooks

package resolver

import (
	"os"
	"strings"
)

// rulesOff reads INFRA_TEST_DISABLE, in which token, page, monotonic, lag and
// outcome name a rule each; other names are those of other packages. Only programs
// built with the tag faulthooks look at it.
func rulesOff() (off rules) {
	for name := range strings.SplitSeq(os.Getenv("INFRA_TEST_DISABLE"), ",") {
		switch strings.TrimSpace(name) {
		case "token":
			off |= tokenRule
		case "page":
			off |= pageRule
		case "monotonic":
			off |= monotonicRule
		case "lag":
			off |= lagRule
		case "outcome":
			off |= outcomeRule
		}
	}
	return off
}

//go:build faulthooks

package resolver

import (
	"fmt"
	"os"
	"strings"
)

// rulesOff reads INFRA_TEST_DISABLE, a list of token, page and monotonic. Only
// programs built with the tag faulthooks look at it.
func rulesOff() (off rules) {
	for name := range strings.SplitSeq(os.Getenv("INFRA_TEST_DISABLE"), ",") {
		switch strings.TrimSpace(name) {
		case "":
		case "token":
			off |= tokenRule
		case "page":
			off |= pageRule
		case "monotonic":
			off |= monotonicRule
		default:
			panic(fmt.Sprintf("resolver: INFRA_TEST_DISABLE names %q: there are token, page, monotonic", name))
		}
	}
	return off
}

// Package steps runs the steps of an example under headings.
package steps

import (
	"fmt"
	"strings"
)

// Step shows one thing, and fails when it did not happen.
type Step struct {
	Title string
	Run   func() error
}

// Run runs the steps in turn and stops at the first that fails.
func Run(steps ...Step) error {
	for _, s := range steps {
		fmt.Printf("\n── %s %s\n", s.Title, strings.Repeat("─", max(0, 74-len(s.Title))))
		if err := s.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(s.Title), err)
		}
	}
	return nil
}

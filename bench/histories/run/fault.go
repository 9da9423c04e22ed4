// Package run is what histories of different areas have in common: faults by
// name, the times in which they happened and what they met, and workers that are
// processes of their own. What a history has to show is each area's own affair.
package run

import (
	"context"
	"fmt"
	"strings"
)

// Fault is something that happens to a run of the kind P while its workers work.
type Fault[P any] struct {
	Name string
	// Run does it and undoes it. It returns once all is as before.
	Run func(ctx context.Context, p P) error
}

// Choose returns the faults that a comma-separated list names, all if it is empty,
// and none if it is "none".
func Choose[P any](all []Fault[P], list string) (chosen []Fault[P], err error) {
	switch list {
	case "":
		return all, nil
	case "none":
		return nil, nil
	}
	var names []string
	for _, f := range all {
		names = append(names, f.Name)
	}
next:
	for name := range strings.SplitSeq(list, ",") {
		for _, f := range all {
			if f.Name == name {
				chosen = append(chosen, f)
				continue next
			}
		}
		return nil, fmt.Errorf("-faults names %q: there are %s", name, strings.Join(names, ", "))
	}
	return chosen, nil
}

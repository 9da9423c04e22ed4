package run

import (
	"fmt"
	"math"
)

// Share is a part of a whole, which has to reach some size for a run to show
// anything.
type Share struct {
	Part, Whole int
	Least       float64 // 0 to 1
	What        string  // it is of which: "of the reads were hits"
}

// Value is between 0 and 1; 0 of nothing is 0.
func (s Share) Value() float64 { return float64(s.Part) / float64(max(s.Whole, 1)) }

// NoProof says why the share shows nothing; empty when it does.
func (s Share) NoProof() string {
	if s.Value() >= s.Least {
		return ""
	}
	// Rounded down, as what falls short by little must not read as if it did not.
	return fmt.Sprintf("%.1f %% %s: must be at least %.0f %%", math.Floor(1000*s.Value())/10, s.What, 100*s.Least)
}

package main

import "testing"

// run fails when something that it shows did not happen.
func TestWhatIsShownHappens(t *testing.T) {
	if err := run(t.Context(), "127.0.0.1:0", false); err != nil {
		t.Fatal(err)
	}
}

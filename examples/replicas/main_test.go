package main

import (
	"testing"

	"github.com/gorminfra/infra/internal/testbed"
)

// run fails when something that it shows did not happen.
func TestWhatIsShownHappens(t *testing.T) {
	testbed.RequirePostgres(t)
	testbed.RequireRedis(t)
	if err := run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

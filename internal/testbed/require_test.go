package testbed

import (
	"errors"
	"fmt"
	"testing"
)

// recorder is a TB that notes how a test would have ended.
type recorder struct {
	TB
	end string
}

func (*recorder) Helper() {}

func (r *recorder) Skipf(string, ...any)  { r.end = "skip" }
func (r *recorder) Fatalf(string, ...any) { r.end = "fatal" }

func TestMissingServerSkipsAndFailsOnCI(t *testing.T) {
	missing := fmt.Errorf("testbed: x: %w", ErrNotInstalled)
	for _, tt := range []struct {
		ci   string
		err  error
		want string
	}{
		{"", nil, ""},
		{"true", nil, ""},
		{"", missing, "skip"},
		{"true", missing, "fatal"},
	} {
		t.Setenv("CI", tt.ci)
		var r recorder
		require(&r, tt.err)
		if r.end != tt.want {
			t.Errorf("CI=%q, error %v: %q, want %q", tt.ci, tt.err, r.end, tt.want)
		}
	}
}

func TestSharedStartsOnceAndKeepsItsError(t *testing.T) {
	var s shared[*Proxy]
	starts := 0
	fail := func() (*Proxy, error) { starts++; return nil, errors.New("no") }
	for range 2 {
		if _, err := s.get(fail); err == nil {
			t.Error("no error")
		}
	}
	if starts != 1 {
		t.Errorf("started %d times, want once", starts)
	}
	if err := s.close(); err != nil {
		t.Errorf("close of what never started: %v", err)
	}
}

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/bench/histories/cached"
)

// Whoever reads that something went wrong has to be able to try it again.
func TestSeedIsTold(t *testing.T) {
	t.Parallel()
	for _, area := range []string{routing, cache} {
		var out, errOut strings.Builder
		if exit := prove([]string{"-area", area, "-seed", "4711", "-faults", "earthquake"}, &out, &errOut); exit != exitFailed {
			t.Errorf("%s: exit %d with a fault that there is not", area, exit)
		}
		if !strings.Contains(errOut.String(), "seed 4711:") || !strings.Contains(errOut.String(), "earthquake") {
			t.Errorf("%s: it says %q", area, errOut.String())
		}
	}
	var out strings.Builder
	(&summary{Seed: 4711}).print(&out)
	(&cached.Summary{Seed: 4712}).Print(&out)
	for _, seed := range []string{"4711", "4712"} {
		if !strings.Contains(out.String(), "seed") || !strings.Contains(out.String(), seed) {
			t.Errorf("the summary does not tell seed %s: %s", seed, out.String())
		}
	}
	out.Reset()
	show(&out, &summary{Seed: 4711}, true, nil)
	if !strings.Contains(out.String(), `"seed": 4711`) {
		t.Errorf("nor does it as JSON: %s", out.String())
	}
}

func TestSeedIsDrawnUnlessItIsGiven(t *testing.T) {
	t.Parallel()
	given, _, err := parse([]string{"-seed", "31"}, &strings.Builder{})
	if err != nil || given.seed != 31 {
		t.Errorf("-seed 31 is taken as %d, %v", given.seed, err)
	}
	drawn := map[uint64]bool{}
	for range 4 {
		s, _, err := parse(nil, &strings.Builder{})
		if err != nil {
			t.Fatal(err)
		}
		drawn[s.seed] = true
	}
	if drawn[0] || len(drawn) < 2 {
		t.Errorf("drew the seeds %v", drawn)
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-area caching":           `-area is "caching"`,
		"-ops 0":                  "-ops and -sessions must be at least 1",
		"-workers 1":              "-workers at least 2",
		"-sessions -1":            "-ops and -sessions must be at least 1",
		"-replicas 1":             "-replicas is 1: must be between 2 and 8",
		"-replicas 9":             "-replicas is 9: must be between 2 and 8",
		"-area cache -redis ring": `-redis is "ring"`,
		"-area cache -workers 2":  "-workers is 2: must be at least 3",
		"-area cache -seed never": "invalid value",
	} {
		var out, errOut strings.Builder
		if exit := prove(strings.Fields(args), &out, &errOut); exit != exitFailed || !strings.Contains(errOut.String(), want) {
			t.Errorf("%s: exit %d, it says %q", args, exit, errOut.String())
		}
	}
}

func TestRunHasAMinuteAndASecondForEachThousandOperations(t *testing.T) {
	t.Parallel()
	for ops, want := range map[int]time.Duration{1: time.Minute, 20_000: 80 * time.Second, 1_000_000: 1060 * time.Second} {
		s, _, err := parse([]string{"-ops", fmt.Sprint(ops)}, &strings.Builder{})
		if err != nil || s.limit.Truncate(time.Second) != want {
			t.Errorf("-ops %d: by %v, %v, want %v", ops, s.limit, err, want)
		}
	}
	if s, _, _ := parse([]string{"-limit", "5s"}, &strings.Builder{}); s.limit != 5*time.Second {
		t.Errorf("-limit 5s is taken as %v", s.limit)
	}
}

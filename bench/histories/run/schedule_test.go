package run

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script is a run of which only the faults are looked at.
type script struct {
	schedule Schedule[*script]
	began    time.Time
	ran      []string
	happened Happened
}

// begin makes a schedule of faults that take a second each, with a second between.
func begin(enough func(s *script) bool, names ...string) *script {
	s := &script{happened: Happened{}, began: time.Now()}
	s.schedule = Schedule[*script]{
		Order: func(n int) []int {
			order := make([]int, n)
			for i := range order {
				order[i] = n - 1 - i
			}
			return order
		},
		Pause:   func(ctx context.Context) error { return sleep(ctx, time.Second) },
		Enough:  func() bool { return enough(s) },
		Failure: make(chan error),
		Now:     func() int64 { return int64(time.Since(s.began)) },
	}
	for _, name := range names {
		s.schedule.Faults = append(s.schedule.Faults, Fault[*script]{Name: name, Run: func(ctx context.Context, s *script) error {
			s.ran = append(s.ran, name)
			return sleep(ctx, time.Second)
		}})
	}
	return s
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func after(n int) func(*script) bool { return func(s *script) bool { return len(s.ran) >= n } }

func TestEachFaultHappensOnceInEveryRoundAndOnceAtLeast(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		enough int // faults
		want   string
	}{
		{"enough from the start on", 0, "b a"},
		{"enough in the first round", 1, "b a"},
		{"enough in the second", 3, "b a b"},
		{"enough after the second", 4, "b a b a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := begin(after(tc.enough), "a", "b")
				if err := s.schedule.Run(t.Context(), s, s.happened); err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(s.ran, " "); got != tc.want {
					t.Errorf("happened %q, want %q", got, tc.want)
				}
				if first := s.happened["b"][0]; first != (Span{From: int64(time.Second), To: int64(2 * time.Second)}) {
					t.Errorf("the first happened at %v", first)
				}
			})
		})
	}
}

func TestWithoutFaultsAScheduleWaitsUntilEnoughWasDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(func(s *script) bool { return time.Since(s.began) >= 10*time.Second })
		if err := s.schedule.Run(t.Context(), s, s.happened); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(s.began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("it was over after %v, want when enough was done", took)
		}
	})
}

// The time may be over in the middle of a fault: it is undone all the same, and
// counts. What comes after it does not happen any more.
func TestFaultThatHasBegunIsUndoneWhenTheTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(after(1000), "a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if err := s.schedule.Run(ctx, s, s.happened); err != nil {
			t.Fatalf("the end of the time is no failure: %v", err)
		}
		if !slices.Equal(s.ran, []string{"b"}) || len(s.happened["b"]) != 1 || len(s.happened["a"]) != 0 {
			t.Errorf("ran %q, noted %v, want one to its end and no other", s.ran, s.happened)
		}
		if took := time.Since(s.began); took != 2*time.Second {
			t.Errorf("it was over after %v, want 2 s: with the fault's undoing", took)
		}
	})
}

func TestNothingHappensOnceTheTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(after(1000), "a")
		s.schedule.Pause = func(context.Context) error { return nil } // as if both came at once
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.schedule.Run(ctx, s, s.happened); err != nil || len(s.ran) > 0 {
			t.Errorf("ran %q, error %v", s.ran, err)
		}
	})
}

// A fault that cannot be undone must not hold the run for ever.
func TestFaultHasAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(after(1), "a")
		s.schedule.Faults[0].Run = func(ctx context.Context, _ *script) error { <-ctx.Done(); return ctx.Err() }
		err := s.schedule.Run(t.Context(), s, s.happened)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "fault a") || len(s.happened["a"]) > 0 {
			t.Errorf("error %v, noted %v, want the fault's name and its deadline, and that it did not happen", err, s.happened)
		}
		if took := time.Since(s.began); took != time.Second+longest {
			t.Errorf("it took %v", took)
		}
	})
}

func TestFailedWorkerEndsTheSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(after(1000), "a")
		failure, broken := make(chan error, 1), errors.New("worker 1: broken")
		s.schedule.Failure = failure
		time.AfterFunc(2500*time.Millisecond, func() { failure <- broken })
		if err := s.schedule.Run(t.Context(), s, s.happened); !errors.Is(err, broken) {
			t.Errorf("error %v, want the worker's", err)
		}
		if len(s.ran) != 1 {
			t.Errorf("ran %q after the failure", s.ran)
		}
	})
}

func TestChooseTakesFaultsByName(t *testing.T) {
	t.Parallel()
	all := []Fault[int]{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	for _, tc := range []struct{ list, want, err string }{
		{"", "a b c", ""},
		{"none", "", ""},
		{"c,a", "c a", ""},
		{"b", "b", ""},
		{"b,d", "", `-faults names "d": there are a, b, c`},
	} {
		chosen, err := Choose(all, tc.list)
		var names []string
		for _, f := range chosen {
			names = append(names, f.Name)
		}
		if got := strings.Join(names, " "); got != tc.want || (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
			t.Errorf("%q: chose %q, error %v", tc.list, got, err)
		}
	}
}

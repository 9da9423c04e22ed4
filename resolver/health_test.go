package resolver

import (
	"sync"
	"testing"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	type step struct {
		good bool    // a probe that was sent at the step's time
		bad  failure // evidence at the step's time
		want bool    // in rotation after it
	}
	good, lost, late := step{good: true}, step{bad: refused}, step{bad: timedOut}
	in := func(s step) step { s.want = true; return s }
	for name, steps := range map[string][]step{
		"the first answer is enough":               {in(good)},
		"refused at the start, back after two":     {lost, good, in(good)},
		"silent at the start, back after two":      {late, good, in(good)},
		"one refusal ejects":                       {in(good), lost, lost, good, in(good)},
		"one timeout does not":                     {in(good), in(late), in(good), in(late), in(good)},
		"two timeouts in a row do":                 {in(good), in(late), late, good, in(good)},
		"an answer between keeps it in":            {in(good), in(late), in(good), in(late)},
		"a timeout between the two good ones":      {in(good), lost, good, late, good, in(good)},
		"conflicts and saturation are no evidence": {in(good), in(step{bad: conflict}), in(step{bad: saturated}), in(step{bad: conflict})},
	} {
		var h health
		for i, s := range steps {
			now := int64(i + 1)
			if s.good {
				h.good(now)
			} else {
				h.bad(s.bad, now)
			}
			if h.in != s.want {
				t.Errorf("%s: step %d: in rotation: %v", name, i+1, h.in)
			}
		}
	}
}

func TestAnswerFromBeforeTheEjectionDoesNotCount(t *testing.T) {
	t.Parallel()
	var h health
	h.good(1)
	if !h.bad(refused, 10) || h.bad(refused, 11) {
		t.Error("an ejection is told once")
	}
	for range 5 {
		if h.good(9) || h.in { // sent before, answered after
			t.Fatal("a probe from before the ejection brought the node back")
		}
	}
	if h.good(12) || !h.good(13) {
		t.Error("two answers after it do not")
	}
	if h.ejections != 1 {
		t.Errorf("%d ejections", h.ejections)
	}
}

func TestSessionKeepsItsLatestWrite(t *testing.T) {
	t.Parallel()
	var none *session
	if none.floor(0) != 0 {
		t.Error("no session has a floor")
	}
	var s session
	var wg sync.WaitGroup
	for i := range int64(100) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s.note(i)
		}()
	}
	wg.Wait()
	if got := s.floor(0); got != 99 {
		t.Errorf("floor is %d, want 99", got)
	}
}

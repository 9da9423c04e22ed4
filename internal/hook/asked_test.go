package hook_test

import (
	"context"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// slowRouter takes its time, and may say so.
type slowRouter struct {
	everyStage
	says        bool
	waited      time.Duration // of Route
	asked, came hook.Moment
	attempt     time.Duration // as Done is told
	record      time.Duration
}

func (s *slowRouter) Route(_ context.Context, r *hook.Record) (*hook.Node, error) {
	s.asked, s.came = r.Asked(), hook.Now()
	<-time.After(5 * time.Millisecond)
	s.waited = hook.Now().Sub(s.came)
	if s.says {
		r.Delayed()
	}
	return s.primary, nil
}

func (s *slowRouter) Done(_ *hook.Record, _ *hook.Node, _ error, d time.Duration) { s.attempt = d }

func (s *slowRouter) Observe(_ context.Context, r *hook.Record) {
	s.record = r.Duration
	if s.asked < r.Start || s.asked > s.came {
		s.asked = 0
	}
}

func TestAttemptCountsFromTheQuestionUnlessTheRouterHasWaited(t *testing.T) {
	t.Parallel()
	for _, says := range []bool{false, true} {
		db := openNull(t, oneCompany)
		hub := attach(t, db)
		router := &slowRouter{everyStage: everyStage{hub.Primary()}, says: says}
		remove, err := hub.Register(router)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(remove)
		var c []Company
		if err := db.Find(&c).Error; err != nil {
			t.Fatal(err)
		}
		if router.asked == 0 {
			t.Error("asked at a time that is not between the statement's start and the question")
		}
		switch {
		case !says && router.attempt < router.waited:
			t.Errorf("an attempt of %v, of which its router took %v", router.attempt, router.waited)
		case says && router.attempt > router.record-router.waited:
			t.Errorf("an attempt of %v in a statement of %v, of which the router had waited %v", router.attempt, router.record, router.waited)
		}
	}
}

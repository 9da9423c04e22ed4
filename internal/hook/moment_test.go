package hook_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

func TestMomentIsATimeOfTheCalendarAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := hook.Now()
		if m != hook.MomentOf(began) {
			t.Errorf("now is %d, and %d of the same time", m, hook.MomentOf(began))
		}
		<-time.After(time.Minute)
		if got := m.Time(); !got.Equal(began) {
			t.Errorf("%v a minute later, want %v", got, began)
		}
		if ago := hook.Now().Sub(m); ago != time.Minute || m.Add(ago) != hook.Now() {
			t.Errorf("%v ago, want a minute", ago)
		}
	})
}

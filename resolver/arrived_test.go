package resolver

import (
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
)

// What a token stands for may be newer than what this process's cache holds.
func TestTokenKeepsWorkFromWhatACacheHoldsOfBefore(t *testing.T) {
	t.Parallel()
	now := int64(1)
	r := New(Config{Session: Session{Key: make([]byte, 32)}})
	r.now = func() int64 { return now }
	a := &router{r}

	ctx, s, _ := scope.Begin(t.Context(), "request")
	defer s.End()
	ctx = r.WithToken(ctx, "of somebody")
	if ago, ok := hook.SinceContact(s); !ok || ago > time.Minute {
		t.Errorf("the scope learned of a database %v ago, %v: want just now", ago, ok)
	}
	if a.Bound(&hook.Record{Context: ctx}) {
		t.Error("no cache may answer a scope that a token came to: it need only ask")
	}

	job := r.WithToken(t.Context(), "of somebody")
	if !a.Bound(&hook.Record{Context: job}) {
		t.Error("a cache may answer a job that a token came to just now")
	}
	now += int64(longestLease)
	if a.Bound(&hook.Record{Context: job}) {
		t.Error("no cache may answer a job that a token came to a minute ago")
	}
}

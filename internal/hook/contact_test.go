package hook

import (
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/scope"
)

func TestContactIsTheLatest(t *testing.T) {
	t.Parallel()
	if _, ok := SinceContact(nil); ok {
		t.Error("no scope has had contact")
	}
	_, s, _ := scope.Begin(t.Context(), "request")
	defer s.End()
	if _, ok := SinceContact(s); ok {
		t.Error("a scope that has done nothing has had contact")
	}
	Touch(s)
	contacts.Get(s).note(Now().Add(-time.Hour))
	if ago, ok := SinceContact(s); !ok || ago < 0 || ago > time.Minute {
		t.Errorf("contact %v ago, %v: want just now", ago, ok)
	}
}

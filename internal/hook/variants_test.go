package hook_test

import (
	"testing"

	"github.com/gorminfra/infra/internal/hook"
)

// variant is one way to run a scenario. Its transcript must be that of bare
// GORM.
type variant struct {
	name string
	// use installs what the variant is about; nil for bare GORM.
	use func(t *testing.T, e *env)
}

// variants are all ways in which each behaviour is shown. The first one is what
// the others are compared with.
func variants() []variant {
	return []variant{
		{name: "bare"},
		{name: "hooked", use: useHooked},
	}
}

// useHooked registers a part that takes part in every stage.
func useHooked(t *testing.T, e *env) {
	hub, err := hook.Attach(e.db)
	if err != nil {
		t.Fatal(err)
	}
	p := newPart(t, e, hub)
	remove, err := hub.Register(p)
	if err != nil {
		t.Fatal(err)
	}
	e.part, e.hub, e.removePart = p, hub, remove
	t.Cleanup(remove)
}

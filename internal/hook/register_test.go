package hook_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/gorminfra/infra/internal/hook"
)

// incomparable cannot be found again among the parts.
type incomparable struct{ _ []int }

func TestRegisterRefusesWhatItCouldNotRemove(t *testing.T) {
	t.Parallel()
	hub := attach(t, openNull(t, oneCompany))
	for _, part := range []any{nil, incomparable{}, struct{ v any }{[]int{1}}} {
		if _, err := hub.Register(part); err == nil || !strings.Contains(err.Error(), "must be comparable") {
			t.Errorf("%T: got %v, want a refusal", part, err)
		}
	}
	remove, err := hub.Register(&watcher{})
	if err != nil {
		t.Fatal(err)
	}
	remove()
}

func TestForkThatWasChargedChargesItsRecordNoMore(t *testing.T) {
	t.Parallel()
	s := &refork{}
	db := openNull(t, oneCompany)
	attach(t, db, s)
	var c Company
	if err := db.First(&c, 1).Error; err != nil || c.Name != "acme" {
		t.Fatalf("%+v, %v", c, err)
	}
	if s.charges != 1 {
		t.Fatalf("charged %d times, want once", s.charges)
	}
}

// refork serves by a fork whose rows come to nothing, and then by itself.
type refork struct{ charges int }

func (*refork) Serves(*hook.Record) bool { return true }

func (s *refork) Charge(context.Context, *hook.Record) error {
	s.charges++
	return nil
}

func (*refork) Serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	f := r.Fork(ctx)
	f.Quiet = true
	rows, err := f.Next(ctx)
	if err != nil {
		return nil, err
	}
	f.Finish(-1, errors.Join(rows.Err(), rows.Close()))
	r.Take(f)
	return r.Next(ctx)
}

package cachehook

import (
	"context"
	"testing"

	"github.com/gorminfra/infra/internal/hook"
)

// shownTimes notes when the answers of reads had been read.
type shownTimes struct{ last hook.Moment }

func (s *shownTimes) Observe(_ context.Context, r *hook.Record) { s.last = r.Shown }

// A session must know how old what it was shown may be, to read nothing older.
func TestHitTellsByWhenItWasRead(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	hub, err := hook.Attach(db.DB)
	must(t, err)
	shown := &shownTimes{}
	remove, err := hub.Register(shown)
	must(t, err)
	defer remove()

	before := hook.Now()
	read := func() {
		var price int64
		must(t, db.DB.Raw("SELECT price FROM products WHERE id = 1").Scan(&price).Error)
	}
	read()
	after := hook.Now()
	if shown.last != 0 {
		t.Error("a read of the database tells of an earlier one")
	}
	for db.seen.count(hook.L1) == 0 {
		read()
	}
	if shown.last < before || db.seen.queries.Load() == 1 && shown.last > after {
		t.Errorf("read between %v and %v, and the hit says %v", before, after, shown.last)
	}
}

package hook_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
)

// watcher keeps the finished records.
type watcher struct {
	mu      sync.Mutex // guards records
	records []*hook.Record
}

func (w *watcher) Observe(_ context.Context, r *hook.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, r)
}

func (w *watcher) all() []*hook.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*hook.Record(nil), w.records...)
}

func attach(tb testing.TB, db *gorm.DB, parts ...any) *hook.Hub {
	tb.Helper()
	hub, err := hook.Attach(db)
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range parts {
		remove, err := hub.Register(p)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(remove)
	}
	return hub
}

// slow answers after a time that depends on the table.
func slow(text string) ([]string, [][]driver.Value) {
	switch {
	case strings.Contains(text, `"pets"`):
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the clock is synctest's
		return []string{"id", "user_id", "name"}, [][]driver.Value{{int64(1), int64(1), "rex"}, {int64(2), int64(1), "tom"}}
	case strings.Contains(text, `"users"`):
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the clock is synctest's
		return []string{"id", "name"}, [][]driver.Value{{int64(1), "ann"}}
	case strings.Contains(text, "no_rows"):
		return []string{"id"}, nil
	}
	return oneCompany(text)
}

func TestDurationIsTheStatementsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		db := openNull(t, slow)
		attach(t, db, &w)
		start := hook.Now()
		var users []User
		if err := db.Preload("Pets").Find(&users).Error; err != nil || len(users) != 1 || len(users[0].Pets) != 2 {
			t.Fatalf("find: %v, %v", users, err)
		}
		r := w.all()
		if len(r) != 2 {
			t.Fatalf("%d records, want parent and preload", len(r))
		}
		parent, preload := r[0], r[1]
		if parent.Duration != 10*time.Millisecond || preload.Duration != 50*time.Millisecond {
			t.Errorf("durations %v and %v, want 10ms and 50ms", parent.Duration, preload.Duration)
		}
		if preload.Parent != parent || parent.Parent != nil {
			t.Error("the preload does not know its parent")
		}
		if parent.Start != start || preload.Start != start.Add(10*time.Millisecond) {
			t.Errorf("starts %v and %v", parent.Start.Sub(start), preload.Start.Sub(start))
		}
		if parent.Rows != 1 || preload.Rows != 2 || parent.Table() != "users" || preload.Table() != "pets" {
			t.Errorf("rows %d, %d of %s, %s", parent.Rows, preload.Rows, parent.Table(), preload.Table())
		}
	})
}

func TestDurationOfRowsLastsUntilTheirClose(t *testing.T) {
	t.Parallel()
	for name, ctx := range map[string]func(context.Context) context.Context{
		"endless": func(context.Context) context.Context { return context.Background() },
		"test's":  func(c context.Context) context.Context { return c },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w watcher
				db := openNull(t, slow)
				attach(t, db, &w)
				rows, err := db.WithContext(ctx(t.Context())).Model(&User{}).Rows()
				if err != nil || !rows.Next() || len(w.all()) != 0 {
					t.Fatalf("rows: %v, %d records before their close", err, len(w.all()))
				}
				time.Sleep(time.Second) //nolint:forbidigo // the clock is synctest's
				if err := rows.Close(); err != nil {
					t.Fatal(err)
				}
				if r := w.all(); len(r) != 1 || r[0].Duration != time.Second+10*time.Millisecond || r[0].Err != nil {
					t.Fatalf("records %+v", r)
				}
				row := db.WithContext(ctx(t.Context())).Model(&User{}).Row()
				time.Sleep(time.Second) //nolint:forbidigo // the clock is synctest's
				if err := row.Scan(new(int), new(string)); err != nil {
					t.Fatal(err)
				}
				if r := w.all(); len(r) != 2 || r[1].Duration != time.Second+10*time.Millisecond {
					t.Fatalf("records %+v", r)
				}
			})
		})
	}
}

func TestRowsThatTheContextClosedHaveItsError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		db := openNull(t, slow)
		attach(t, db, &w)
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := db.WithContext(ctx).Model(&User{}).Rows()
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if r := w.all(); len(r) != 1 || !errors.Is(r[0].Err, context.Canceled) {
			t.Fatalf("records %+v, want one that was cancelled", r)
		}
		_ = rows.Close()
	})
}

func TestRecordTellsWhatTheStatementWas(t *testing.T) {
	t.Parallel()
	var w watcher
	db := openNull(t, slow)
	hub := attach(t, db, &w)
	ctx, s, _ := scope.Begin(t.Context(), "job")
	db = db.WithContext(ctx)
	db.First(&Company{}, 7)
	db.Raw("SELECT id FROM no_rows").First(&Company{})
	db.Exec("UPDATE companies SET name = ?", "x")
	_ = db.Transaction(func(tx *gorm.DB) error { return tx.Create(&Company{Name: "x"}).Error })
	_ = db.ConnPool.QueryRowContext(ctx, "SELECT 1 FROM companies").Scan(new(int), new(string))
	s.End()
	db.Take(&Company{})
	for i, want := range []struct {
		chain  hook.Chain
		where  hook.Where
		access hook.Access
		rows   int64
		args   int
		err    error
		txn    bool
		scoped bool
	}{
		{hook.Query, hook.Pooled, hook.ReadOnly, 1, 2, nil, false, true},
		{hook.Query, hook.Pooled, hook.ReadOnly, 0, 0, gorm.ErrRecordNotFound, false, true},
		{hook.Raw, hook.Pooled, hook.Write, 1, 1, nil, false, true},
		{hook.Create, hook.InTxn, hook.Write, 1, 1, nil, true, true},
		{hook.Direct, hook.Pooled, hook.ReadOnly, -1, 0, nil, false, true},
		{hook.Query, hook.Pooled, hook.ReadOnly, 1, 1, nil, false, false},
	} {
		r := w.all()[i]
		if r.Chain != want.chain || r.Where != want.where || r.Access != want.access || r.Rows != want.rows || len(r.Args) != want.args ||
			!errors.Is(r.Err, want.err) || (r.Txn != nil) != want.txn || (r.Scope != nil) != want.scoped ||
			r.Outcome != hook.Database || r.Node != hub.Primary() || r.Text == nil || r.Table() == "" {
			t.Errorf("record %d, %s: %v %v %v rows %d args %d err %v txn %v scope %v outcome %v", i, r.SQL,
				r.Chain, r.Where, r.Access, r.Rows, len(r.Args), r.Err, r.Txn, r.Scope, r.Outcome)
		}
	}
	if n := len(w.all()); n != 6 {
		t.Errorf("%d records, want 6", n)
	}
}

// forking answers the caller with an error, and goes on by itself.
type forking struct {
	done chan error
	hint hook.Hint
	rows int
}

func (*forking) Serves(*hook.Record) bool { return true }

func (f *forking) Serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	fork := r.Fork(context.WithoutCancel(ctx))
	go func() {
		f.hint = fork.Hint()
		rows, err := fork.Next(fork.Context)
		if err == nil {
			for rows.Next() {
				f.rows++
			}
			err = errors.Join(rows.Err(), rows.Close())
		}
		fork.Finish(int64(f.rows), err)
		f.done <- err
	}()
	return nil, errInner
}

func TestForkRunsOnAfterItsCaller(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*gorm.DB) error{
		"Query": func(db *gorm.DB) error { return db.Find(&[]Company{}).Error },
		"Row":   func(db *gorm.DB) error { return db.Model(&Company{}).Row().Scan(new(int), new(string)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var w watcher
			f := &forking{done: make(chan error)}
			db := openNull(t, oneCompany)
			hub := attach(t, db, &w, f)
			ctx, cancel := context.WithCancel(t.Context())
			if err := read(db.WithContext(ctx).Clauses(dbresolver.Use("reports"))); !errors.Is(err, errInner) {
				t.Fatalf("the caller got %v", err)
			}
			cancel()
			if err := <-f.done; err != nil || f.rows != 1 {
				t.Fatalf("the fork read %d rows, %v", f.rows, err)
			}
			if f.hint.Use != "reports" {
				t.Errorf("the fork forgot %+v", f.hint)
			}
			r := w.all()
			if len(r) != 2 {
				t.Fatalf("%d records, want the caller's and the fork's", len(r))
			}
			fork := r[0]
			if !fork.Background {
				fork = r[1]
			}
			if !fork.Background || fork.Rows != 1 || fork.Err != nil || fork.Node != hub.Primary() || fork.Duration <= 0 {
				t.Errorf("the fork's record: %+v", fork)
			}
		})
	}
}

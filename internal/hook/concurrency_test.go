package hook_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// balanced counts what must come in pairs.
type balanced struct {
	observed, begun, ended, routed, done atomic.Int64
	node                                 *hook.Node
}

func (b *balanced) Observe(context.Context, *hook.Record)         { b.observed.Add(1) }
func (b *balanced) Begin(*hook.Txn)                               { b.begun.Add(1) }
func (b *balanced) BeforeCommit(context.Context, *hook.Txn) error { return nil }
func (b *balanced) Ended(t *hook.Txn, _ hook.TxnOutcome) {
	if !t.Autocommit {
		b.ended.Add(1)
	}
}
func (b *balanced) Route(context.Context, *hook.Record) (*hook.Node, error) {
	b.routed.Add(1)
	return b.node, nil
}
func (b *balanced) Retry(context.Context, *hook.Record, error) *hook.Node { return nil }
func (b *balanced) Done(*hook.Record, *hook.Node, error, time.Duration)   { b.done.Add(1) }
func (b *balanced) RouteTx(context.Context, *sql.TxOptions, hook.Hint) (*hook.Node, error) {
	return b.node, nil
}

func TestManyGoroutinesShareOneLayer(t *testing.T) {
	t.Parallel()
	db := openNull(t, oneCompany)
	hub := attach(t, db)
	pool := sql.OpenDB(nullDriver{oneCompany})
	defer pool.Close()
	b := &balanced{node: hub.NewNode("shared", pool)}
	defer b.node.Close()
	remove, err := hub.Register(b)
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	const goroutines, rounds = 8, 60
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			db := db.WithContext(t.Context())
			prepared := db.Session(&gorm.Session{PrepareStmt: true})
			for range rounds {
				if db.Find(&[]Company{}).Error != nil || prepared.First(&Company{}).Error != nil {
					t.Error("a read failed")
				}
				if err := db.Transaction(func(tx *gorm.DB) error { return tx.Create(&Company{Name: "x"}).Error }); err != nil {
					t.Error(err)
				}
				rows, err := db.Model(&Company{}).Rows()
				if err != nil {
					t.Error(err)
					return
				}
				_ = rows.Close()
				if err := db.Exec("UPDATE companies SET name = 'x'").Error; err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var around sync.WaitGroup
	around.Go(func() { // parts and nodes come and go, and DDL happens
		for {
			select {
			case <-stop:
				return
			default:
			}
			n := hub.NewNode("passing", pool)
			take, err := hub.Register(&watcher{})
			if err != nil {
				t.Error(err)
				return
			}
			b.node.Reset()
			take()
			n.Close()
		}
	})
	wg.Wait()
	close(stop)
	around.Wait()
	if n := int64(goroutines * rounds); b.observed.Load() != 5*n || b.begun.Load() != n || b.ended.Load() != n {
		t.Errorf("observed %d, begun %d, ended %d in %d rounds", b.observed.Load(), b.begun.Load(), b.ended.Load(), n)
	}
	if b.routed.Load() != b.done.Load() {
		t.Errorf("routed %d, told of the end of %d", b.routed.Load(), b.done.Load())
	}
}

func TestFunctionsOfTheUserAreLookedUpOnce(t *testing.T) {
	t.Parallel()
	var looked atomic.Int64
	db := openNull(t, func(text string) ([]string, [][]driver.Value) {
		if strings.Contains(text, "pg_proc") {
			looked.Add(1)
			return []string{"nspname", "proname", "v"}, [][]driver.Value{{"public", "stable_one", false}, {"public", "writes", true}, {"a", "two", true}, {"b", "two", false}}
		}
		return oneCompany(text)
	})
	var w watcher
	attach(t, db, &w)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { db.Raw("SELECT stable_one()").Find(&[]Company{}) })
	}
	wg.Wait()
	if looked.Load() != 1 {
		t.Errorf("looked up %d times by 8 goroutines, want once", looked.Load())
	}
	for _, r := range w.all() {
		if r.Access != hook.ReadOnly {
			t.Errorf("a stable function is %v", r.Access)
		}
	}
	for text, want := range map[string]hook.Access{
		"SELECT writes()": hook.Write, "SELECT never_heard_of()": hook.Write, "SELECT two()": hook.Write,
		"SELECT b.two()": hook.ReadOnly, "SELECT a.two()": hook.Write, "SELECT public.stable_one()": hook.ReadOnly,
	} {
		db.Raw(text).Find(&[]Company{})
		if r := w.all(); r[len(r)-1].Access != want {
			t.Errorf("%s is %v, want %v", text, r[len(r)-1].Access, want)
		}
	}
	db.Exec("CREATE FUNCTION another()")
	db.Raw("SELECT stable_one()").Find(&[]Company{})
	if looked.Load() != 2 {
		t.Errorf("looked up %d times after DDL, want twice", looked.Load())
	}
}

func TestLookUpOfFunctionsKeepsToTheCallersDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openNull(t, func(text string) ([]string, [][]driver.Value) {
			if strings.Contains(text, "pg_proc") {
				time.Sleep(time.Hour) //nolint:forbidigo // the clock is synctest's
			}
			return oneCompany(text)
		})
		var w watcher
		attach(t, db, &w)
		first := make(chan struct{})
		go func() {
			defer close(first)
			db.Raw("SELECT f()").Find(&[]Company{})
		}()
		synctest.Wait() // it is looking
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		start := time.Now()
		db.WithContext(ctx).Raw("SELECT f()").Find(&[]Company{})
		if d := time.Since(start); d > 20*time.Millisecond {
			t.Errorf("waited %v, want no longer than its deadline", d)
		}
		<-first
		if r := w.all(); r[0].Access != hook.Write {
			t.Errorf("a function that could not be looked up is %v, want write", r[0].Access)
		}
	})
}

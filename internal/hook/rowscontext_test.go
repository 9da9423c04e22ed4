package hook

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/replay"
)

// oneRow is a result to make real *sql.Rows of.
type oneRow struct{ read bool }

func (*oneRow) Columns() []replay.Column { return []replay.Column{{Name: "n"}} }
func (*oneRow) Close() error             { return nil }
func (s *oneRow) Next(dest []driver.Value) error {
	if s.read {
		return io.EOF
	}
	s.read, dest[0] = true, int64(1)
	return nil
}

// told counts the calls of a rowsContext.
type told struct {
	n   atomic.Int32
	err atomic.Value
}

func (c *told) closed(err error) {
	c.n.Add(1)
	if err != nil {
		c.err.Store(err)
	}
}

func openRows(t *testing.T, ctx context.Context) *sql.Rows { //nolint:revive // the context is what is tested
	t.Helper()
	db := replay.New()
	t.Cleanup(func() { _ = db.Close() })
	rows, err := db.Rows(ctx, &oneRow{})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestRowsOfTheCallerTellTheirCloseOnce(t *testing.T) {
	t.Parallel()
	cancelable, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"endless": context.Background(), "cancelable": cancelable} {
		t.Run(name, func(t *testing.T) {
			var c told
			rc := newRowsContext(ctx, c.closed)
			rows := openRows(t, rc)
			if !rc.handOver() {
				t.Fatal("open rows were not handed over")
			}
			if !rows.Next() || c.n.Load() != 0 {
				t.Fatalf("told %d times while a row is read", c.n.Load())
			}
			for range 2 {
				if err := rows.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if c.n.Load() != 1 || c.err.Load() != nil {
				t.Fatalf("told %d times with %v, want once with nil", c.n.Load(), c.err.Load())
			}
		})
	}
}

func TestRowsReadToTheirEndTellIt(t *testing.T) {
	t.Parallel()
	var c told
	rc := newRowsContext(t.Context(), c.closed)
	rows := openRows(t, rc)
	rc.handOver()
	for rows.Next() { //nolint:revive // reading closes
	}
	if rows.Err() != nil || c.n.Load() != 1 {
		t.Fatalf("told %d times, %v", c.n.Load(), rows.Err())
	}
}

func TestRowsClosedBeforeTheHandOverAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	var c told
	rc := newRowsContext(t.Context(), c.closed)
	_ = openRows(t, rc).Close()
	if rc.handOver() {
		t.Fatal("closed rows were handed over: their record would never end")
	}
	none := newRowsContext(t.Context(), c.closed)
	if none.handOver() || c.n.Load() != 0 {
		t.Fatal("rows that never were were handed over")
	}
}

func TestRowsBelowAnotherContextAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	type key struct{}
	var c told
	rc := newRowsContext(context.Background(), c.closed)
	rows := openRows(t, context.WithValue(rc, key{}, 1))
	if rc.handOver() {
		t.Fatal("handed over rows whose close cannot be seen")
	}
	_ = rows.Close()
	if c.n.Load() != 0 {
		t.Fatal("told although nothing was handed over")
	}
}

func TestContextThatEndsWhileRowsAreReadIsTold(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var c told
	rc := newRowsContext(ctx, c.closed)
	rows := openRows(t, rc)
	if !rc.handOver() {
		t.Fatal("not handed over")
	}
	cancel()
	waitFor(t, func() bool { return c.n.Load() == 1 })
	if err, _ := c.err.Load().(error); !errors.Is(err, context.Canceled) {
		t.Fatalf("told %v, want context.Canceled", err)
	}
	_ = rows.Close()
	if c.n.Load() != 1 {
		t.Fatal("told again by Close")
	}
}

func TestContextThatEndedBeforeTheHandOver(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var c told
	rc := newRowsContext(ctx, c.closed)
	rows := openRows(t, rc)
	cancel()
	if rc.handOver() {
		t.Fatal("handed over although the context has ended")
	}
	_ = rows.Close()
	if c.n.Load() != 0 {
		t.Fatal("told although nothing was handed over")
	}
}

func TestWatchOfTheCallersContextIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *rowsContext){
		"close": func(t *testing.T, c *rowsContext) {
			rows := openRows(t, c)
			c.handOver()
			_ = rows.Close()
		},
		"no hand-over": func(_ *testing.T, c *rowsContext) { c.handOver() },
		"drop":         func(_ *testing.T, c *rowsContext) { c.drop() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			rc := newRowsContext(ctx, func(error) {})
			end(t, rc)
			cancel()
			// A watch that is still there closes the channel on a goroutine of its
			// own; one that came before ours would have run by the end of this.
			ran := make(chan struct{})
			context.AfterFunc(ctx, func() { close(ran) })
			<-ran
			select {
			case <-rc.Done():
				t.Fatal("the context is still watched")
			default:
			}
		})
	}
}

func TestCloseAndCancelAtTheSameTimeTellOnce(t *testing.T) {
	t.Parallel()
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		var c told
		rc := newRowsContext(ctx, c.closed)
		rows := openRows(t, rc)
		var handed atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() { _ = rows.Close() })
		wg.Go(cancel)
		wg.Go(func() { handed.Store(rc.handOver()) })
		wg.Wait()
		if handed.Load() {
			waitFor(t, func() bool { return c.n.Load() == 1 })
		} else if c.n.Load() != 0 {
			t.Fatalf("told %d times although nothing was handed over", c.n.Load())
		}
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen within 5 s")
		}
	}
}

package limithook

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// output keeps what several goroutines log.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func TestRefusedConnectionIsToldAsSuch(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[Mode]string{Local: "each process counts for itself", Open: "everything is admitted", Closed: "everything is refused"} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			log := &output{}
			l := testLimiter(t, Config{
				PerUser: PerMinute(100), Name: "shop", OnRedisFailure: mode, Timeout: 20 * time.Millisecond,
				Redis: client(t, addr), Logger: slog.New(slog.NewTextHandler(log, nil)),
			}, monotonic)
			for range tripAfter {
				_, _ = l.Decide(as("a"), 1)
			}
			eventually(t, "the log tells", func() bool { return strings.Contains(log.String(), "level=WARN") })
			for _, part := range []string{want, "db=shop", "mode=" + mode.String(), "connection refused"} {
				if !strings.Contains(log.String(), part) {
					t.Errorf("%q is missing in %s", part, log.String())
				}
			}
			if err := l.Allow(as("a")); mode == Closed && (err == nil || !strings.Contains(err.Error(), "connection refused")) {
				t.Errorf("the refusal does not tell: %v", err)
			}
		})
	}
}

func TestSilentRedisIsNotToldAsRefused(t *testing.T) {
	t.Parallel()
	server, l := mortal(t, Config{PerUser: PerMinute(100), OnRedisFailure: Closed, Timeout: 20 * time.Millisecond})
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Redis counts as down", func() bool { _ = l.Allow(as("a")); return l.Stats().Down })
	if err := l.Allow(as("a")); err == nil || strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Redis is in use again", func() bool { return !l.Stats().Down })
}

// nobodyThere is a server that is asked nothing.
type nobodyThere struct{}

func (nobodyThere) probe(context.Context) error       { return nil }
func (nobodyThere) unreachable(context.Context) error { return nil }

// Goroutines that wait for a call are few and end with the link, which goleak
// sees; a call that finds none of them idle is not held up.
func TestGoroutinesOfALinkAreKeptForFurtherCalls(t *testing.T) {
	t.Parallel()
	k := newLink(Config{Timeout: 10 * time.Second}.withDefaults(), nobodyThere{})
	const calls = 3 * maxIdle
	var begun, over sync.WaitGroup
	begun.Add(calls)
	release := make(chan struct{})
	for range calls {
		over.Go(func() {
			if started, err := k.do(t.Context(), runFunc(func(context.Context) error { begun.Done(); <-release; return nil })); !started || err != nil {
				t.Errorf("started %v, %v", started, err)
			}
		})
	}
	begun.Wait() // all at a time
	close(release)
	over.Wait()
	eventually(t, "the others have gone", func() bool { return k.idle.Load() == maxIdle })
	for range 2 * calls {
		if _, err := k.do(t.Context(), runFunc(func(context.Context) error { return nil })); err != nil {
			t.Error(err)
		}
	}
	k.stop()
	if started, err := k.do(t.Context(), runFunc(func(context.Context) error { t.Error("called after the end"); return nil })); started || err == nil {
		t.Errorf("after the end: started %v, %v", started, err)
	}
}

package testbed_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/internal/testbed"
)

// echo is a server that sends every line back; at EOF it says "bye".
func echo(t *testing.T) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { check(t, l.Close()); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
				_, _ = io.WriteString(conn, "bye\n")
			}()
		}
	}()
	return l.Addr().String()
}

// line is a client of echo.
type line struct {
	*net.TCPConn
	in *bufio.Reader
}

func dial(t *testing.T, p *testbed.Proxy) line {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	check(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return line{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (l line) send(t *testing.T, s string) {
	t.Helper()
	_, err := io.WriteString(l, s+"\n")
	check(t, err)
}

func (l line) want(t *testing.T, want string) {
	t.Helper()
	got, err := l.in.ReadString('\n')
	if got != want+"\n" || err != nil {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// wantNothing expects no byte for a while.
func (l line) wantNothing(t *testing.T) {
	t.Helper()
	check(t, l.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if got, err := l.in.ReadString('\n'); !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Fatalf("read %q, %v, want nothing", got, err)
	}
	check(t, l.SetDeadline(time.Now().Add(10*time.Second)))
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestProxyForwardsAndCounts(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	l := dial(t, p)
	l.send(t, "hello")
	l.want(t, "hello")
	if got, want := p.Stats(), (testbed.ProxyStats{Accepted: 1, Active: 1, ToServer: 6, ToClient: 6}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	check(t, l.CloseWrite())
	l.want(t, "bye") // the client's half-close reaches the server, whose last words reach the client
	if _, err := l.in.ReadByte(); err != io.EOF {
		t.Errorf("end of stream: %v, want EOF", err)
	}
	poll(t, "end of the connection", func(context.Context) bool { return p.Stats().Active == 0 })
}

func TestProxyDelayAddsLatencyInBothDirections(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	l := dial(t, p)
	const delay = 30 * time.Millisecond
	p.SetDelay(delay)
	start := time.Now()
	l.send(t, "slow")
	l.want(t, "slow")
	if took := time.Since(start); took < 2*delay {
		t.Errorf("round trip took %v, want at least %v", took, 2*delay)
	}
	p.SetDelay(time.Hour)
	l.send(t, "stuck")
	l.wantNothing(t) // and Close does not wait for the hour
}

// What a delay of a millisecond is to be compared with may not be late by as much.
func TestProxyDelayIsExact(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	l := dial(t, p)
	const delay = 1100 * time.Microsecond
	p.SetDelay(delay)
	var took time.Duration
	poll(t, "round trips that often take no more than their delays and a little", func(context.Context) bool {
		var trips [15]time.Duration
		for i := range trips {
			start := time.Now()
			l.send(t, "x")
			l.want(t, "x")
			trips[i] = time.Since(start)
			<-time.After(3 * time.Millisecond) // until the runtime sleeps
		}
		slices.Sort(trips[:])
		took = trips[len(trips)/4]
		return took < 2*delay+delay/2
	})
	if took < 2*delay {
		t.Errorf("a round trip took %v, want at least %v", took, 2*delay)
	}
}

func TestProxyCutResetsAndRefusesUntilRestored(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	l := dial(t, p)
	l.send(t, "1")
	l.want(t, "1")
	p.Cut()
	if _, err := l.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a cut: %v, want a reset", err)
	}
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after a cut: %v, want a refusal", err)
	}
	check(t, p.Restore())
	l = dial(t, p)
	l.send(t, "2")
	l.want(t, "2")
}

func TestProxyRefuseSparesPresentConnections(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	l := dial(t, p)
	l.send(t, "1")
	l.want(t, "1")
	p.Refuse()
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want a refusal", err)
	}
	l.send(t, "2")
	l.want(t, "2")
	check(t, p.Restore())
	l = dial(t, p)
	l.send(t, "3")
	l.want(t, "3")
}

// A process that is being started must not keep the port open.
func TestProxyRefusesWhileProcessesStart(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	ctx, stop := context.WithCancel(t.Context())
	var starting sync.WaitGroup
	defer starting.Wait()
	defer stop()
	for range 4 {
		starting.Go(func() {
			for ctx.Err() == nil {
				_ = exec.Command("true").Run()
			}
		})
	}
	for range 300 {
		p.Refuse()
		if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v, want a refusal", err)
		}
		check(t, p.Restore())
	}
}

func TestProxyBlackholeHoldsBytesUntilRestored(t *testing.T) {
	t.Parallel()
	for name, directions := range map[string][]testbed.Direction{
		"both": nil, "to server": {testbed.ToServer}, "to client": {testbed.ToClient},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testbed.NewProxy(t, echo(t))
			before := dial(t, p)
			before.send(t, "1")
			before.want(t, "1")
			sent := p.Stats().ToServer

			p.Blackhole(directions...)
			during := dial(t, p)
			before.send(t, "2")
			during.send(t, "3")
			before.wantNothing(t)
			during.wantNothing(t)
			reached := p.Stats().ToServer > sent
			if want := name == "to client"; reached != want {
				t.Errorf("the server was reached: %v, want %v", reached, want)
			}
			check(t, p.Restore())
			before.want(t, "2")
			during.want(t, "3")
		})
	}
}

func TestProxyHalfCloseEndsTheStreamToTheClientOnly(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	l := dial(t, p)
	l.send(t, "1")
	l.want(t, "1")
	p.HalfClose()
	if _, err := l.in.ReadByte(); err != io.EOF {
		t.Errorf("read after a half-close: %v, want EOF", err)
	}
	l.send(t, "2")
	poll(t, "arrival at the server", func(context.Context) bool { return p.Stats().ToServer == 4 })
}

func TestProxySendsNewConnectionsToNewTarget(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, "127.0.0.1:1")                 // nobody is there
	if conn, err := net.Dial("tcp", p.Addr()); err == nil { // the reset may come as early as this
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a dead target answered")
		}
		check(t, conn.Close())
	}
	check(t, p.SetTarget(echo(t)))
	l := dial(t, p)
	l.send(t, "1")
	l.want(t, "1")
}

func TestProxyCloseIsFinal(t *testing.T) {
	t.Parallel()
	p := testbed.NewProxy(t, echo(t))
	l := dial(t, p)
	p.Blackhole()
	check(t, p.Close())
	check(t, p.Close())
	if _, err := l.in.ReadByte(); err == nil {
		t.Error("a closed proxy answered")
	}
	if p.Restore() == nil || p.SetTarget("127.0.0.1:1") == nil {
		t.Error("a closed proxy came back")
	}
}

// The two cuts look the same to the client and differ in what happened.
func TestProxyCutsBeforeAndAfterCommit(t *testing.T) {
	c := testbed.SharedCluster(t)
	db := newTable(t, c)
	for _, tt := range []struct {
		name string
		cut  func(*testbed.Proxy, string)
		rows int
	}{
		{"before", (*testbed.Proxy).CutBefore, 0},
		{"after", (*testbed.Proxy).CutAfter, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := deadline(t)
			p := testbed.NewProxy(t, c.Primary().Addr())
			conn, err := pgx.Connect(ctx, testbed.DSN(p.Addr(), db))
			check(t, err)
			defer func() { _ = conn.Close(ctx) }()
			tt.cut(p, "commit")
			tx, err := conn.Begin(ctx)
			check(t, err)
			_, err = tx.Exec(ctx, "INSERT INTO items VALUES (1)")
			check(t, err)
			if err := tx.Commit(ctx); err == nil {
				t.Fatal("commit succeeded")
			}
			wantCount(t, c.Primary(), db, tt.rows)
			check(t, c.Primary().Exec(ctx, db, "TRUNCATE items"))
		})
	}
}

package resolver

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/internal/testbed"
)

// slowDoor is a driver.Connector that counts who is at the door at once.
type slowDoor struct {
	driver.Connector
	takes    time.Duration
	fails    atomic.Bool
	now, top atomic.Int64
	mu       sync.Mutex // guards at
	at       []time.Time
}

func (d *slowDoor) Connect(ctx context.Context) (driver.Conn, error) {
	d.mu.Lock()
	d.at = append(d.at, time.Now())
	d.mu.Unlock()
	n := d.now.Add(1)
	defer d.now.Add(-1)
	for {
		top := d.top.Load()
		if n <= top || d.top.CompareAndSwap(top, n) {
			break
		}
	}
	select {
	case <-time.After(d.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.fails.Load() {
		return nil, errors.New("refused")
	}
	return nil, nil
}

func TestR13RecoveryIsNoDialStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		door := &slowDoor{takes: 10 * time.Millisecond}
		g := newGentle(door)
		dial := func(n int) (failed int64) {
			var wg sync.WaitGroup
			var bad atomic.Int64
			for range n {
				wg.Add(1)
				go func() {
					defer wg.Done()
					if _, err := g.Connect(t.Context()); err != nil {
						bad.Add(1)
					}
				}()
			}
			wg.Wait()
			return bad.Load()
		}
		if bad := dial(50); bad != 0 || door.top.Load() != maxDials {
			t.Errorf("%d failed, %d at once", bad, door.top.Load())
		}
		// While it fails, the pauses grow.
		door.fails.Store(true)
		door.at = nil
		began := time.Now()
		dial(40)
		if took := time.Since(began); took < 3*time.Second {
			t.Errorf("40 dials in vain in %v", took)
		}
		if n := len(door.at); n != 40 {
			t.Errorf("%d dials", n)
		}
		// Whoever waits does so within its context, and a node that was seen to
		// answer is dialled at once.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := g.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting gives %v", err)
		}
		door.fails.Store(false)
		g.forgive()
		began = time.Now()
		if _, err := g.Connect(t.Context()); err != nil || time.Since(began) > 11*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestSocketsAreKnownAndCut(t *testing.T) {
	t.Parallel()
	s := newSockets(func(context.Context, string, string) (net.Conn, error) {
		c, other := net.Pipe()
		t.Cleanup(func() { _ = other.Close() })
		return c, nil
	})
	dial := func() net.Conn {
		t.Helper()
		c, err := s.connect(t.Context(), "tcp", "x")
		must(t, err)
		return c
	}
	a, b := dial(), dial()
	must(t, a.Close())
	failed := make(chan error, 1)
	go func() { _, err := b.Read(make([]byte, 1)); failed <- err }()
	if n := s.cut(); n != 1 {
		t.Errorf("%d sockets cut", n)
	}
	if err := <-failed; err == nil {
		t.Error("a read on a cut socket succeeds")
	}
	s.set(true)
	if _, err := s.connect(t.Context(), "tcp", "x"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a shut way gives %v", err)
	}
	s.set(false)
	must(t, dial().Close())
	if n := s.cut(); n != 0 {
		t.Errorf("%d sockets left", n)
	}
	(*sockets)(nil).cut()
	(*sockets)(nil).set(true)
}

// phoneBook answers for names.
type phoneBook struct {
	mu    sync.Mutex // guards addrs and err
	addrs []string
	err   error
	asked atomic.Int64
}

func (p *phoneBook) lookup(context.Context, string) ([]string, error) {
	p.asked.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs, p.err
}

func (p *phoneBook) set(err error, addrs ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addrs, p.err = addrs, err
}

func TestR13NamesKeepTheirLastGoodAnswer(t *testing.T) {
	t.Parallel()
	book := &phoneBook{}
	cfg, err := pgx.ParseConfig("host=db.example port=5432")
	must(t, err)
	cfg.LookupFunc = book.lookup
	n := namesOf(cfg)
	ctx := t.Context()
	if _, err := n.resolve(ctx, "db.example"); err != nil {
		t.Error(err)
	}
	book.set(nil, "10.0.0.1", "10.0.0.2")
	if n.changed(ctx) {
		t.Error("the first answer is a change")
	}
	for _, step := range []struct {
		what    string
		err     error
		addrs   []string
		changed bool
		first   string
	}{
		{"another order", nil, []string{"10.0.0.2", "10.0.0.1"}, false, "10.0.0.2"},
		{"nothing", nil, nil, false, "10.0.0.2"},
		{"an error", errors.New("no such host"), nil, false, "10.0.0.2"},
		{"another server", nil, []string{"10.0.0.9"}, true, "10.0.0.9"},
		{"the same again", nil, []string{"10.0.0.9"}, false, "10.0.0.9"},
	} {
		book.set(step.err, step.addrs...)
		if got := n.changed(ctx); got != step.changed {
			t.Errorf("%s: changed %v", step.what, got)
		}
		if addrs, err := n.resolve(ctx, "db.example"); err != nil || len(addrs) == 0 || addrs[0] != step.first {
			t.Errorf("%s: %v, %v", step.what, addrs, err)
		}
	}
	for _, dsn := range []string{"host=127.0.0.1", "host=/tmp", "host=::1"} {
		cfg, err := pgx.ParseConfig(dsn)
		must(t, err)
		if namesOf(cfg).changed(ctx) || namesOf(cfg) != nil {
			t.Errorf("%s has a name", dsn)
		}
	}
}

func TestR13AnAddressThatChangesIsFollowed(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	first, second := testbed.NewProxy(t, c.Replica(0).Addr()), testbed.NewProxy(t, c.Replica(1).Addr())
	book := &phoneBook{}
	book.set(nil, first.Addr())
	g := newRig(t, c, nil)
	g.close()
	cfg := Config{
		Replicas: DSNs("postgres://postgres@replica.example:1/" + g.name + "?sslmode=disable"),
		Probe:    patient, Pool: Pool{Max: 4, Min: 2}, Logger: quiet(), MaxLag: time.Hour,
	}
	g.r = New(cfg)
	g.r.lookup = book.lookup
	g.db = openWith(t, g.primary, g.r)
	must(t, g.r.Ready(deadline(t)))
	on := func() int { return g.read(inScope(deadline(t), "dns"), 1).Port }
	eventually(t, "reads on the first", func() bool { return on() == c.Replica(0).Port() })

	// An empty answer changes nothing, for new connections either.
	book.set(nil)
	first.Reset()
	asked := book.asked.Load()
	eventually(t, "new connections", func() bool { return book.asked.Load() > asked && on() == c.Replica(0).Port() })

	// The name means another server, while the first one lives, and nothing has to be
	// dialled that would meet the other one by chance.
	eventually(t, "a full pool", func() bool { n := g.node("replica1").Pool; return n.Idle >= 2 && n.Open == n.Idle })
	book.set(nil, second.Addr())
	eventually(t, "reads on the second", func() bool { return on() == c.Replica(1).Port() })
	eventually(t, "the first to be left", func() bool { return first.Stats().Active == 0 })
	for range 20 {
		if port := on(); port == c.Replica(0).Port() {
			t.Fatal("a read on the first server")
		}
	}
}

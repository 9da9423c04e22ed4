package resolver

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/testbed"
)

// One of two replicas stops and goes on replaying, while both are within the
// bound: without a floor every second read would go behind an earlier one.
func TestSessionNeverReadsBehindWhatItWasShown(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag = time.Hour
		cfg.Probe.Interval = 20 * time.Millisecond
		cfg.Session.Key = bytes.Repeat([]byte("k"), 32)
	})
	g.allInUse()
	stop := g.writing()
	back, reads, replica, moved := alternate(t, g, 8, 4*time.Second)
	if back > 0 || replica < reads*3/10 || moved == 0 {
		t.Errorf("%d of %d reads went back; %d on a replica, %d sessions moved", back, reads, replica, moved)
	}
	t.Logf("%d reads, %d on a replica, %d moves, %d back", reads, replica, moved, back)

	// The test is able to fail.
	g.without(monotonicRule)
	g.allInUse()
	back, reads, _, _ = alternate(t, g, 8, time.Second)
	t.Logf("without the rule: %d of %d went back", back, reads)
	if back == 0 {
		t.Error("without the rule nothing goes back: the test shows nothing")
	}
	stop()
}

// alternate runs sessions that read one row over and over, while a replica is
// paused and resumed. Half of them hand a token on to a next session now and
// then.
func alternate(t *testing.T, g *rig, sessions int, d time.Duration) (back, reads, replica, moved int64) {
	ctx := deadline(t)
	var counts struct{ back, reads, replica, moved atomic.Int64 }
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	wg.Go(func() {
		n := g.c.Replica(1)
		for time.Now().Before(end) {
			must(t, n.PauseReplay(ctx))
			time.Sleep(150 * time.Millisecond) //nolint:forbidigo // the fault lasts as long
			must(t, n.ResumeReplay(ctx))
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // and rests as long
		}
	})
	for i := range sessions {
		wg.Go(func() {
			var last where
			sctx := inScope(ctx, "session")
			for n := 1; time.Now().Before(end); n++ {
				var w where
				err := g.db.WithContext(sctx).Raw("SELECT pg_is_in_recovery() AS standby, inet_server_port() AS port, n FROM items WHERE id = 1").Scan(&w).Error
				if err != nil {
					t.Error(err)
					return
				}
				counts.reads.Add(1)
				if w.N < last.N {
					counts.back.Add(1)
				}
				if w.Standby {
					counts.replica.Add(1)
				}
				if last.Port != 0 && w.Port != last.Port {
					counts.moved.Add(1)
				}
				last = w
				switch {
				case n%50 == 0: // a session that rests may be given another node
					time.Sleep(3 * g.r.cfg.Probe.Interval) //nolint:forbidigo // the session rests
				case i%2 == 0 && n%20 == 0:
					text, err := g.r.Token(sctx)
					if err != nil || text == "" {
						t.Errorf("no token of a session that read: %q, %v", text, err)
					}
					sctx = g.r.WithToken(inScope(ctx, "next"), text) //nolint:fatcontext // made of ctx, not of itself
				case i%4 == 1 && n%20 == 0:
					text, _ := g.r.Token(sctx)
					sctx = g.r.WithToken(ctx, text) // a job without a scope
				}
			}
		})
	}
	wg.Wait()
	return counts.back.Load(), counts.reads.Load(), counts.replica.Load(), counts.moved.Load()
}

// A paused replica's rows are read slowly; what is read between them may come
// from nobody who is behind.
func TestRowsBindWhatIsReadBetweenThem(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{MaxLag: time.Hour})
	c.tick(true, c.lsn, c.lsn)
	s := &session{}
	a, b := c.replicas()[0], c.replicas()[1]
	ask := func() *question {
		q := &question{bound: time.Hour}
		c.heed(q, s)
		return q
	}
	q := ask()
	s.choose(a, a.run.Load(), q.shown, c.at, true)
	for range 50 {
		if n, _ := c.decide(ask()); n != a {
			t.Fatalf("the rows of %q are being read, and the next read goes to %q", a.name, n.name)
		}
	}
	// It is lost meanwhile.
	c.suspect(a, refused, errRestarted, false)
	if n, why := c.decide(ask()); n != c.primary() || why != reasonSeen {
		t.Errorf("a read went to %q for %q", n.name, why)
	}
	c.at++
	s.saw(a, c.at, true)
	c.tick(true, 0, c.lsn)
	if n, _ := c.decide(ask()); n != b {
		t.Errorf("the rows have been read, and a read goes to %q", n.name)
	}
}

func TestRowsOfThePrimaryBindToo(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Probe.Interval = 20 * time.Millisecond })
	g.allInUse()
	ctx := inScope(deadline(t), "request")
	if w := g.read(ctx, 1); !w.Standby {
		t.Fatal("the session does not begin on a replica")
	}
	rows, err := g.db.WithContext(Primary(ctx)).Model(&item{}).Rows()
	must(t, err)
	defer rows.Close()
	time.Sleep(4 * g.r.cfg.Probe.Interval) //nolint:forbidigo // samples come, and are no bound
	if w := g.read(ctx, 1); w.Standby {
		t.Error("a replica was read between the rows of the primary")
	}
	must(t, rows.Err())
	must(t, rows.Close())
	eventually(t, "the session to go back to a replica", func() bool {
		time.Sleep(4 * g.r.cfg.Probe.Interval) //nolint:forbidigo // a session that rests goes back
		return g.read(ctx, 1).Standby
	})
}

func TestSessionStaysOrWaitsForASample(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{MaxLag: time.Hour})
	a, b := c.replicas()[0], c.replicas()[1]
	interval := int64(c.cfg.Probe.Interval)
	begin := func() *session { c.tick(true, c.lsn, c.lsn); return &session{} }
	read := func(s *session) (*node, reason) {
		q := question{bound: time.Hour}
		c.heed(&q, s)
		n, why := c.decide(&q)
		s.choose(n, n.run.Load(), q.shown, c.at, false)
		c.at++
		s.saw(n, c.at, false)
		return n, why
	}
	on := func(s *session, n *node) { s.saw(n, c.at, false) }

	t.Run("stays", func(t *testing.T) {
		s := begin()
		first, _ := read(s)
		for range 50 {
			if n, _ := read(s); n != first {
				t.Fatal("a session changes its node without need")
			}
		}
	})
	t.Run("moves after a rest", func(t *testing.T) {
		s := begin()
		seen := map[*node]bool{}
		for range 100 {
			n, _ := read(s)
			seen[n] = true
			c.tick(true, c.lsn, c.lsn)
			c.at += 2 * interval
			c.tick(true, c.lsn, c.lsn)
		}
		if !seen[a] || !seen[b] || seen[c.primary()] {
			t.Errorf("%v", seen)
		}
	})
	t.Run("two nodes at once: the primary until a sample", func(t *testing.T) {
		s := begin()
		c.at++
		on(s, a)
		on(s, b)
		if _, why := read(s); why != reasonSeen {
			t.Errorf("reason %q", why)
		}
		c.tick(true, c.lsn, c.lsn)
		if n, _ := read(s); n == c.primary() {
			t.Error("a sample from after the reads does not let it go")
		}
	})
	t.Run("primary", func(t *testing.T) {
		s := begin()
		c.at++
		on(s, c.primary())
		if _, why := read(s); why != reasonSeen {
			t.Errorf("reason %q", why)
		}
	})
	t.Run("restarted", func(t *testing.T) {
		s := begin()
		n, _ := read(s)
		n.run.Add(1)
		if _, why := read(s); why != reasonSeen {
			t.Errorf("reason %q", why)
		}
	})
	t.Run("lost", func(t *testing.T) {
		s := begin()
		n, _ := read(s)
		n.valid.Store(0)
		if _, why := read(s); why != reasonSeen {
			t.Errorf("reason %q", why)
		}
		c.tick(true, c.lsn, c.lsn)
	})
	t.Run("cached", func(t *testing.T) {
		s := begin()
		old := c.at - 1
		c.tick(true, c.lsn, c.lsn)
		s.recalled(old)
		if n, _ := read(s); n == c.primary() {
			t.Error("an answer older than the last sample binds to the primary")
		}
		c.at++
		for _, s := range []*session{s, {}} { // one that has read, and one that was shown nothing else
			s.recalled(c.at)
			if _, why := read(s); why != reasonSeen {
				t.Errorf("after an answer of now: %q", why)
			}
		}
	})
	t.Run("the process", func(t *testing.T) {
		c.tick(true, c.lsn, c.lsn)
		seen := map[*node]bool{}
		for range 100 {
			q := question{bound: time.Hour}
			c.heed(&q, nil)
			n, _ := c.decide(&q)
			seen[n] = true
		}
		if len(seen) != 2 {
			t.Error("work without a scope is held to one node")
		}
	})
}

func TestR05TokenOfAnotherHistoryMeansThePrimary(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{MaxLag: time.Hour})
	with := func(tok token) question {
		s := &session{}
		s.receive(tok, c.Resolver)
		q := question{bound: time.Hour}
		c.heed(&q, s)
		return q
	}
	here := token{system: 42, timeline: 1, lsn: c.lsn}
	c.tick(false, c.lsn, c.lsn)
	c.wants(t, "nothing is known of the primary", with(here), reasonToken)

	c.at++
	c.took(c.primary(), identity{system: 42}, reading{placed: true, lsn: c.lsn, timeline: 1}, c.at)
	c.tick(false, c.lsn, c.lsn)
	for _, tt := range []struct {
		name string
		t    token
		want reason
	}{
		{"replayed", here, reasonReplica},
		{"not replayed", token{system: 42, timeline: 1, lsn: c.lsn + 1}, reasonPosition},
		{"another system", token{system: 43, timeline: 1}, reasonToken},
		{"no system", token{timeline: 1}, reasonToken},
		{"older timeline", token{system: 42}, reasonToken},
		{"newer timeline", token{system: 42, timeline: 2}, reasonToken},
		{"the primary", token{system: 42, timeline: 1, primary: true}, reasonToken},
	} {
		c.wants(t, tt.name, with(tt.t), tt.want)
	}
	c.at++
	c.took(c.primary(), identity{system: 42}, reading{placed: true, lsn: c.lsn, timeline: 2}, c.at)
	c.wants(t, "after a promotion", with(here), reasonToken)
}

func BenchmarkSessionRead(b *testing.B) {
	b.ReportAllocs()
	c := newClocked(Config{MaxLag: time.Hour})
	c.tick(true, c.lsn, c.lsn)
	_, sc, _ := scope.Begin(context.Background(), "bench")
	for b.Loop() {
		q := question{bound: time.Hour}
		c.heed(&q, c.sessionOf(&noOptions, sc, true))
		n, _ := c.decide(&q)
		q.session.choose(n, n.run.Load(), q.shown, c.at, false)
		q.session.saw(n, c.at, false)
	}
}

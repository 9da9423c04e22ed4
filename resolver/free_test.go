package resolver

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// A job that writes once and then reads without a pause, alone and with several
// goroutines in one scope, while others write.
func TestASessionThatNeverRestsGoesBackToReplicas(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), nil)
	g.allInUse()
	stop := g.writing()
	defer stop()
	for _, readers := range []int{1, 4} {
		ctx := inScope(deadline(t), "job")
		must(t, g.db.WithContext(ctx).Create(&item{N: 7}).Error)
		var standby, primary atomic.Int64
		var wg sync.WaitGroup
		end := time.Now().Add(90 * time.Second)
		for range readers {
			wg.Go(func() {
				var last int64
				for time.Now().Before(end) && standby.Load() < int64(200*readers) {
					var w where
					if err := g.db.WithContext(ctx).Raw("SELECT pg_is_in_recovery() AS standby, n FROM items WHERE id = 1").Scan(&w).Error; err != nil {
						t.Error(err)
						return
					}
					if w.N < last {
						t.Errorf("a read went back from %d to %d", last, w.N)
					}
					last = w.N
					if w.Standby {
						standby.Add(1)
					} else {
						primary.Add(1)
					}
				}
			})
		}
		wg.Wait()
		t.Logf("%d readers: %d reads on the primary, then %d on replicas", readers, primary.Load(), standby.Load())
		if standby.Load() < int64(200*readers) {
			t.Errorf("%d readers: %d reads on replicas, %d on the primary", readers, standby.Load(), primary.Load())
		}
	}
}

func TestReadsWaitForAReplicaOnceInAnInterval(t *testing.T) {
	t.Parallel()
	const interval, patience = 1000, 100
	s := &session{}
	for _, step := range []struct{ now, want int64 }{
		{5000, 0},    // it has come to the primary
		{5999, 0},    // not for an interval yet
		{6000, 6100}, // it waits
		{6050, 6100}, // with whoever comes meanwhile
		{6100, 0},    // in vain
		{7099, 0},
		{7100, 7200},
		{8300, 0}, // twice in vain
		{9199, 0},
		{9200, 9300},
		{13299, 0},
		{13300, 13400},
	} {
		if got := s.mayWait(step.now, interval, patience); got != step.want {
			t.Errorf("at %d: it waits until %d, want %d", step.now, got, step.want)
		}
	}
	c := newClocked(Config{})
	n := c.replicas()[0]
	s.choose(n, n.run.Load(), s.shown, 13350, false)
	if got := s.mayWait(13360, interval, patience); got != 0 {
		t.Errorf("a session that has left the primary waits until %d", got)
	}
}

// What ended elsewhere after a node was found fit, may be ahead of it; what ended
// on the node itself is not.
func TestANodeIsKeptThroughReadsThatEndThere(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{MaxLag: time.Hour})
	c.tick(true, c.lsn, c.lsn)
	a := c.replicas()[0]
	run := a.run.Load()
	for what, tt := range map[string]struct {
		ends func(s *session)
		kept bool
	}{
		"nothing":                  {func(*session) {}, true},
		"a read there":             {func(s *session) { s.saw(a, c.at+2, false) }, true},
		"two reads there":          {func(s *session) { s.saw(a, c.at+2, false); s.saw(a, c.at+3, false) }, true},
		"a read on the primary":    {func(s *session) { s.saw(c.primary(), c.at+2, false) }, false},
		"there after the primary":  {func(s *session) { s.saw(c.primary(), c.at+2, false); s.saw(a, c.at+3, false) }, false},
		"the primary after there":  {func(s *session) { s.saw(a, c.at+2, false); s.saw(c.primary(), c.at+3, false) }, false},
		"an answer from the cache": {func(s *session) { s.saw(a, c.at+2, false); s.recalled(c.at + 3) }, false},
		"a read of its next life":  {func(s *session) { a.run.Add(1); s.saw(a, c.at+2, false); a.run.Store(run) }, false},
		"rows there":               {func(s *session) { s.choose(a, run, s.shown, c.at+1, true) }, true},
		"rows of the primary":      {func(s *session) { s.choose(c.primary(), 0, s.shown, c.at+1, true) }, false},
		"rows of both": {func(s *session) {
			s.choose(a, run, s.shown, c.at+1, true)
			s.choose(c.primary(), 0, s.shown, c.at+2, true)
		}, false},
		"there, and a token's news": {func(s *session) { s.saw(a, c.at+2, false); s.receive(token{boot: 9}, c.Resolver) }, false},
	} {
		s := &session{}
		s.saw(c.primary(), c.at, false)
		seen, _, _ := s.look(c.at)
		tt.ends(s)
		s.choose(a, run, seen, c.at+5, false)
		if kept := s.shown.on == a; kept != tt.kept {
			t.Errorf("%s: kept %v", what, kept)
		}
	}
}

// Switching off that a session does not go back must leave what tokens say.
func TestTokensHoldWithoutTheMonotonicRule(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{MaxLag: time.Hour})
	c.cfg.Session.Key = bytes.Repeat([]byte("k"), 32)
	c.off = monotonicRule
	probe := func() {
		c.at++
		c.took(c.primary(), identity{system: 42}, reading{placed: true, lsn: c.lsn, timeline: 1}, c.at)
		c.tick(false, c.lsn, c.lsn)
	}
	probe()
	named, other := c.replicas()[0], c.replicas()[1]
	named.boot.Store(77)
	tok := token{system: 42, timeline: 1, boot: 77, expires: time.Now().Add(time.Hour).Unix()}

	ctx := c.WithToken(context.Background(), tok.encode(c.cfg.Session.Key))
	served := func(s *session) map[*node]int {
		nodes := map[*node]int{}
		for range 50 {
			q := question{bound: time.Hour}
			c.heed(&q, s)
			n, _ := c.decide(&q)
			nodes[n]++
		}
		return nodes
	}
	s := c.sessionOf(optionsOf(ctx), nil, false)
	if got := served(s); got[named] != 50 {
		t.Errorf("what a replica showed elsewhere is read on others: %v", got)
	}
	// Its own reads do not bind.
	for range 4 {
		probe()
	}
	c.at++
	s.saw(c.primary(), c.at, false)
	if got := served(s); got[c.primary()] > 0 || got[other] == 0 {
		t.Errorf("its own reads bind: %v", got)
	}
	// Without tokens nothing of it is left.
	c.off = tokenRule
	ctx = c.WithToken(context.Background(), tok.encode(c.cfg.Session.Key))
	if got := served(c.sessionOf(optionsOf(ctx), nil, false)); got[other] == 0 {
		t.Errorf("a token counts although they are off: %v", got)
	}
}

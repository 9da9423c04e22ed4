package resolver

import (
	"errors"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
)

// newElection is a Resolver on a clock of the test's own, with a hub and without
// servers.
func newElection(t *testing.T) *clocked {
	t.Helper()
	db, err := gorm.Open(postgres.Open("host=127.0.0.1 port=1 dbname=none"), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	must(t, err)
	t.Cleanup(func() {
		pool, _ := db.DB()
		_ = pool.Close()
	})
	c := newClocked(Config{})
	c.hub, err = hook.Attach(db)
	must(t, err)
	return c
}

// says lets node i answer a probe: system and timeline 0 are not told.
func (c *clocked) says(i int, standby bool, system uint64, timeline uint32) {
	c.at += int64(c.cfg.Probe.Interval) / 4
	c.took(c.nodes()[i], identity{system: system}, reading{placed: true, standby: standby, lsn: c.lsn, timeline: timeline}, c.at)
}

func (c *clocked) dies(i int) {
	c.at += int64(c.cfg.Probe.Interval) / 4
	c.missed(c.nodes()[i], refused, errors.New("connection refused"))
}

func (c *clocked) silent(i int) {
	c.at += int64(c.cfg.Probe.Interval) / 4
	c.missed(c.nodes()[i], timedOut, errors.New("timeout"))
}

func TestR11WhoIsThePrimary(t *testing.T) {
	t.Parallel()
	const system, other = 7, 8
	normal := func(c *clocked) {
		c.says(0, false, system, 1)
		c.says(1, true, system, 1)
		c.says(2, true, system, 1)
	}
	for name, tc := range map[string]struct {
		happens func(c *clocked)
		leader  int
		vacant  bool
	}{
		"nothing happened": {normal, 0, false},
		"a promotion after the primary's death": {func(c *clocked) {
			normal(c)
			c.dies(0)
			c.says(1, false, system, 2)
		}, 1, false},
		"a promotion beside a living primary": {func(c *clocked) {
			normal(c)
			c.says(1, false, system, 2)
			c.says(0, false, system, 1)
		}, 1, false},
		"a node that leaves recovery on the same timeline": {func(c *clocked) {
			normal(c)
			c.says(1, false, system, 1)
		}, 0, false},
		"one on a timeline that is not told": {func(c *clocked) {
			normal(c)
			c.dies(0)
			c.says(1, false, system, 0)
		}, 0, true},
		"one of a system that is not told": {func(c *clocked) {
			normal(c)
			c.dies(0)
			c.says(1, false, 0, 2)
		}, 0, true},
		"one of another system": {func(c *clocked) {
			normal(c)
			c.dies(0)
			c.says(1, false, other, 2)
		}, 0, true},
		"two promoted to the same timeline: the first": {func(c *clocked) {
			normal(c)
			c.dies(0)
			c.says(2, false, system, 2)
			c.says(1, false, system, 2)
			c.says(2, false, system, 2)
		}, 2, false},
		"two promoted one after the other: the later": {func(c *clocked) {
			normal(c)
			c.says(1, false, system, 2)
			c.says(2, false, system, 3)
			c.says(1, false, system, 2)
		}, 2, false},
		"one behind a timeline that a standby has seen": {func(c *clocked) {
			normal(c)
			c.dies(0)
			c.says(2, true, system, 3)
			c.says(1, false, system, 2)
		}, 0, true},
		"the old primary after a switch back": {func(c *clocked) {
			normal(c)
			c.says(1, false, system, 2)
			c.says(0, true, system, 2)
			c.says(1, true, system, 2)
			c.says(0, false, system, 3)
		}, 0, false},
		"the present one on a new timeline": {func(c *clocked) {
			normal(c)
			c.says(0, false, system, 2)
			c.says(1, false, system, 2)
		}, 0, false},
		"a primary in recovery": {func(c *clocked) {
			normal(c)
			c.says(0, true, system, 1)
		}, 0, true},
		"one probe in vain": {func(c *clocked) {
			normal(c)
			c.silent(0)
			c.silent(0)
		}, 0, false},
		"silence": {func(c *clocked) {
			normal(c)
			for range missesToBeGone {
				c.silent(0)
			}
		}, 0, true},
		"at the start, before the one of gorm.Open has answered": {func(c *clocked) {
			c.says(1, false, system, 2)
			c.silent(0)
			c.says(1, false, system, 2)
		}, 0, false},
		"at the start, with the one of gorm.Open dead": {func(c *clocked) {
			c.dies(0)
			c.says(2, true, system, 2)
			c.says(1, false, system, 2)
		}, 1, false},
		"at the start, with two systems": {func(c *clocked) {
			c.dies(0)
			c.says(2, true, other, 1)
			c.says(1, false, system, 2)
		}, 0, true},
		"at the start, with the one of gorm.Open a standby": {func(c *clocked) {
			c.says(0, true, system, 4)
			c.says(1, false, system, 4)
		}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newElection(t)
			tc.happens(c)
			if c.primary() != c.nodes()[tc.leader] || c.vacant.Load() != tc.vacant {
				t.Errorf("node %q leads, vacant %v (%s)", c.primary().name, c.vacant.Load(), c.vacancy())
			}
			for _, n := range c.nodes() {
				if n != c.primary() && !n.last.standby && n.usable.Load() {
					t.Errorf("a second primary is in use")
				}
			}
		})
	}
}

func TestADrainedNodeThatIsPromotedTakesWorkAgain(t *testing.T) {
	t.Parallel()
	c := newElection(t)
	c.says(0, false, 7, 1)
	c.says(1, true, 7, 1)
	c.nodes()[1].draining.Store(true)
	c.dies(0)
	c.says(1, false, 7, 2)
	if n, _ := c.decide(&question{toPrimary: true}); n != c.nodes()[1] || n.draining.Load() || !n.enter(Critical) {
		t.Error("the primary takes no work")
	}
	// One that was removed meanwhile is nobody.
	gone := c.nodes()[2]
	c.set.Store(&nodeSet{c.nodes()[:2]})
	c.took(gone, identity{system: 7}, reading{placed: true, lsn: c.lsn, timeline: 3}, c.at)
	if c.primary() == gone {
		t.Error("a removed node leads")
	}
}

func TestAStandbyIsUsedOnThePrimarysTimelineAlone(t *testing.T) {
	t.Parallel()
	c := newElection(t)
	c.says(0, false, 7, 1)
	c.says(1, true, 7, 1)
	c.says(2, true, 7, 1)
	c.dies(0)
	c.says(1, false, 7, 2)
	c.lsn += 100 // on the old timeline the other one may have come as far
	c.says(2, true, 7, 1)
	c.says(1, false, 7, 2)
	q := question{bound: c.cfg.MaxLag}
	if n, why := c.decide(&q); n != c.nodes()[1] || why != reasonDown {
		t.Errorf("a read goes to %d for %q", n.index, why)
	}
	c.says(2, true, 7, 2)
	if n, _ := c.decide(&q); n != c.nodes()[2] {
		t.Errorf("after it follows, a read goes to the node %d", n.index)
	}
	// The old primary serves as a standby, and no more than that.
	c.says(0, true, 7, 2)
	c.says(0, true, 7, 2)
	c.at += int64(time.Minute)
	c.says(1, false, 7, 2)
	c.says(2, true, 7, 2)
	c.says(0, true, 7, 2)
	served := map[*node]int{}
	for range 200 {
		n, _ := c.decide(&q)
		served[n]++
	}
	if served[c.nodes()[0]] == 0 || served[c.nodes()[1]] > 0 {
		t.Errorf("reads: old primary %d, new one %d", served[c.nodes()[0]], served[c.nodes()[1]])
	}
}

func TestR13EjectionGrowsWithRepetition(t *testing.T) {
	t.Parallel()
	h := &health{}
	now := int64(0)
	step := func(d time.Duration) int64 { now += int64(d); return now }
	h.good(step(time.Millisecond))
	out := func() time.Duration {
		h.bad(refused, step(time.Millisecond))
		from := now
		for !h.good(step(10 * time.Millisecond)) {
		}
		return time.Duration(now - from)
	}
	if d := out(); d > 20*time.Millisecond {
		t.Errorf("the first time it stays out for %v", d)
	}
	last := time.Duration(0)
	for i := range 12 {
		d := out()
		if d < last || d < firstPenalty || d > maxPenalty+20*time.Millisecond {
			t.Errorf("ejection %d: out for %v after %v", i+2, d, last)
		}
		last = d
	}
	if last < maxPenalty {
		t.Errorf("at last %v", last)
	}
	step(calmTime + time.Second)
	if d := out(); d > 20*time.Millisecond {
		t.Errorf("after a calm time it stays out for %v", d)
	}
}

func TestR13SlowStart(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{nil, WeightedRandom(), RoundRobin(), LeastInFlight()} {
		c := newClocked(Config{Policy: policy})
		c.tick(true, c.lsn, c.lsn)
		q := question{bound: c.cfg.MaxLag}
		share := func() float64 {
			hits := 0
			for range 4000 {
				if n, why := c.decide(&q); n == c.replicas()[1] {
					hits++
				} else if why != reasonReplica {
					t.Fatalf("a read goes to the primary for %q", why)
				}
			}
			return float64(hits) / 4000
		}
		within := func(when string, low, high float64) {
			t.Helper()
			if s := share(); s < low || s > high {
				t.Errorf("%T, %s: share %.2f, want %.2f to %.2f", policy, when, s, low, high)
			}
		}
		within("at the start", 0.4, 0.6)
		c.missed(c.replicas()[1], refused, errors.New("gone"))
		within("while out", 0, 0)
		c.tick(true, c.lsn, c.lsn)
		c.tick(true, c.lsn, c.lsn)
		within("just back", 0.01, 0.12)
		last := 0.0
		for range 3 {
			for range 10 { // of 40 ticks in 10 s
				c.tick(true, c.lsn, c.lsn)
			}
			s := share()
			if s < last-0.02 {
				t.Errorf("%T: the share falls from %.2f to %.2f", policy, last, s)
			}
			last = s
		}
		if last < 0.25 {
			t.Errorf("%T: share %.2f after three quarters", policy, last)
		}
		for range 12 {
			c.tick(true, c.lsn, c.lsn)
		}
		within("at the end", 0.4, 0.6)
		if c.rotation.Load().ramping {
			t.Errorf("%T: the ramp does not end", policy)
		}
		// Alone, it takes all.
		c.missed(c.replicas()[1], refused, errors.New("gone"))
		c.missed(c.replicas()[0], refused, errors.New("gone"))
		for range 4 {
			c.at += int64(firstPenalty)
			c.took(c.primary(), identity{}, reading{placed: true, lsn: c.lsn, timeline: 1}, c.at)
			c.took(c.replicas()[1], identity{}, reading{placed: true, standby: true, lsn: c.lsn, timeline: 1}, c.at)
		}
		within("alone", 1, 1)
	}
}

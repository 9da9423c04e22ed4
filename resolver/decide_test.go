package resolver

import (
	"context"
	"testing"
	"time"
)

// clocked is a Resolver with two replicas on a clock of the test's own, fed with
// probes by hand.
type clocked struct {
	*Resolver
	at  int64
	lsn uint64
}

func newClocked(cfg Config) *clocked {
	c := &clocked{Resolver: New(cfg), at: 1, lsn: 1000}
	c.now = func() int64 { return c.at }
	c.cfg = c.given.withDefaults()
	c.cfg.Logger = quiet()
	c.expiry = int64(2*c.cfg.Probe.Interval + c.cfg.Probe.Timeout)
	c.tightest = 2 * c.cfg.Probe.Interval
	c.rotation.Store(&rotation{})
	c.lead.Store(newNode(c.Resolver, 0, Node{Weight: 1}, true))
	c.set.Store(&nodeSet{[]*node{c.primary(), newNode(c.Resolver, 0, Node{Weight: 1}, false), newNode(c.Resolver, 1, Node{Weight: 1}, false)}})
	return c
}

// tick lets one interval pass and probes: the primary first, then the replicas,
// which have replayed as told.
func (c *clocked) tick(primary bool, replayed ...uint64) {
	c.at += int64(c.cfg.Probe.Interval)
	if primary {
		c.took(c.primary(), identity{}, reading{placed: true, lsn: c.lsn, timeline: 1}, c.at)
	}
	for i, lsn := range replayed {
		c.took(c.replicas()[i], identity{}, reading{placed: true, standby: true, lsn: lsn, timeline: 1}, c.at)
	}
}

func (c *clocked) wants(t *testing.T, what string, q question, want reason) {
	t.Helper()
	n, why := c.decide(&q)
	if why != want || (n == c.primary()) != (want != reasonReplica) {
		t.Errorf("%s: primary %v for %q, want %q", what, n == c.primary(), why, want)
	}
}

func TestLagIsFrozenWhileThePrimaryIsLost(t *testing.T) {
	t.Parallel()
	for _, policy := range []WithoutPrimary{Freeze, Strict} {
		c := newClocked(Config{WithoutPrimary: policy})
		bound := c.cfg.MaxLag
		for range 40 {
			c.lsn += 100
			c.tick(true, c.lsn, 1000) // the second has stopped replaying
		}
		for range 40 {
			c.tick(false, c.lsn, 1000)
		}
		want := reasonReplica
		if policy == Strict {
			want = reasonLag
		}
		c.wants(t, policy.String()+", configured bound", question{bound: bound}, want)
		c.wants(t, policy.String()+", the caller's bound", question{bound: bound, strict: true}, reasonLag)
		c.wants(t, policy.String()+", any staleness", question{bound: AnyStaleness}, reasonReplica)
		c.wants(t, policy.String()+", own write", question{bound: bound, wrote: c.at}, reasonOwnWrite)
		for range 20 {
			q := question{bound: bound}
			if n, _ := c.decide(&q); n == c.replicas()[1] {
				t.Fatal("a replica that lagged before the loss is read")
			}
		}
		c.tick(true, c.lsn, c.lsn)
		c.wants(t, policy.String()+", primary back", question{bound: bound}, reasonReplica)
	}
}

func TestR01TenMinutesIdleEjectNobody(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{})
	q := question{bound: c.tightest}
	for range int(10 * time.Minute / c.cfg.Probe.Interval) {
		c.tick(true, c.lsn, c.lsn)
		c.wants(t, "idle", q, reasonReplica)
	}
	// The first write: the primary's sample shows it before any replica does.
	c.lsn += 100
	c.tick(true)
	c.wants(t, "after the first write", q, reasonReplica)
	c.wants(t, "who wrote it", question{bound: AnyStaleness, wrote: c.at}, reasonOwnWrite)
	c.tick(true, c.lsn, c.lsn)
	c.wants(t, "replayed", q, reasonReplica)
	c.wants(t, "who wrote it, replayed", question{bound: AnyStaleness, wrote: c.at - 1}, reasonReplica)
	c.wants(t, "who wrote when the sample had been sent", question{bound: AnyStaleness, wrote: c.at}, reasonOwnWrite)
}

func TestVerdictExpires(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{MaxLag: time.Hour})
	c.tick(true, c.lsn, c.lsn)
	c.at += c.expiry
	c.wants(t, "at its end", question{bound: time.Hour}, reasonReplica)
	c.at++
	c.wants(t, "past its end", question{bound: time.Hour}, reasonDown)
}

func TestReplicaAheadOfThePrimaryFollowsAnotherHistory(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{})
	c.tick(true, c.lsn, c.lsn+500)
	c.tick(true, c.lsn)
	if c.replicas()[1].misfit != wrongTimeline || c.replicas()[0].misfit != fits {
		t.Errorf("misfits: %v, %v", c.replicas()[0].misfit, c.replicas()[1].misfit)
	}
	// One that is only ahead of the last sample is well.
	c = newClocked(Config{})
	c.tick(true, c.lsn, c.lsn)
	c.tick(false, c.lsn+500)
	if c.replicas()[0].misfit != fits {
		t.Errorf("a replica ahead of an old sample: %v", c.replicas()[0].misfit)
	}
	// A newer timeline than the primary's is another history too.
	c.took(c.replicas()[0], identity{}, reading{placed: true, standby: true, lsn: c.lsn, timeline: 2}, c.at)
	if c.replicas()[0].misfit != wrongTimeline {
		t.Errorf("timeline 2 below a primary on 1: %v", c.replicas()[0].misfit)
	}
}

func TestReplicaThatRestartedBehindIsNotTakenForFresh(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{})
	wrote := c.at
	c.lsn += 100
	c.tick(true, c.lsn, c.lsn)
	c.wants(t, "replayed", question{bound: AnyStaleness, wrote: wrote}, reasonReplica)
	c.tick(true, 1000, 1000)
	c.wants(t, "thrown back", question{bound: AnyStaleness, wrote: wrote}, reasonOwnWrite)
}

func TestContextOptionsAddUp(t *testing.T) {
	t.Parallel()
	ctx := MaxStaleness(WithPriority(Primary(context.Background()), Background), time.Minute)
	if o := optionsOf(ctx); !o.primary || o.priority != Background || !o.bounded || o.bound != time.Minute {
		t.Errorf("%+v", o)
	}
	if o := optionsOf(context.Background()); o.primary || o.bounded {
		t.Errorf("%+v", o)
	}
}

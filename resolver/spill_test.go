package resolver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// All replicas lag, then all are dead: what each priority gets, how many reads the
// primary bears, and what the errors say.
func TestR10NoReplicaIsFitOnRealServers(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
	g := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag = time.Second
		cfg.Probe.Interval = 50 * time.Millisecond
		cfg.Priorities = Priorities{Normal: Class{Spill: 1, Wait: -1}, Background: Class{Wait: time.Millisecond}}
	})
	ctx := deadline(t)
	first, second := c.Replica(0), c.Replica(1)
	fresh := func(p Priority) context.Context { return WithPriority(inScope(ctx, "request"), p) }
	byPriority := func(why string, wide bool) {
		t.Helper()
		if err := g.db.WithContext(fresh(Background)).First(&item{}).Error; !errors.Is(err, ErrNoReplica) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: a background read gives %v", why, err)
		}
		rows, err := g.db.WithContext(fresh(Normal)).Model(&item{}).Rows()
		must(t, err)
		if err := g.db.WithContext(fresh(Normal)).First(&item{}).Error; !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: a second normal read gives %v", why, err)
		}
		must(t, g.db.WithContext(fresh(Critical)).First(&item{}).Error)
		must(t, g.db.WithContext(Primary(fresh(Normal))).First(&item{}).Error)
		must(t, g.db.WithContext(fresh(Normal)).Create(&item{N: 5}).Error)
		if wide && !g.read(MaxStaleness(fresh(Normal), time.Hour), 1).Standby {
			t.Errorf("%s: a read with a bound of an hour went to the primary", why)
		}
		must(t, rows.Err())
		must(t, rows.Close())
		if w := g.read(fresh(Normal), 1); w.Standby {
			t.Errorf("%s: a read went to a replica", why)
		}
	}
	back := func() {
		t.Helper()
		eventually(t, "both replicas to serve each priority", func() bool {
			return g.db.WithContext(fresh(Background)).First(&item{}).Error == nil && g.read(fresh(Normal), 1).Standby &&
				g.node("replica1").Up && g.node("replica2").Up
		})
	}

	must(t, errors.Join(first.PauseReplay(ctx), second.PauseReplay(ctx)))
	must(t, c.Primary().Exec(ctx, g.name, "UPDATE items SET n = 1"))
	eventually(t, "both to lag", func() bool {
		return g.node("replica1").Staleness > time.Second && g.node("replica2").Staleness > time.Second
	})
	byPriority("all replicas are more than 1s behind", true)
	if n := g.node("replica1"); !n.Up || n.Ejections > 0 || g.node("primary").Decisions["lag"] == 0 {
		t.Errorf("a replica that lags: %+v", n)
	}
	must(t, errors.Join(first.ResumeReplay(ctx), second.ResumeReplay(ctx)))
	back()

	must(t, errors.Join(first.StopImmediate(), second.StopImmediate()))
	eventually(t, "both to be out", func() bool { return !g.node("replica1").Up && !g.node("replica2").Up })
	if err := g.db.WithContext(MaxStaleness(fresh(Background), time.Hour)).First(&item{}).Error; !errors.Is(err, ErrNoReplica) {
		t.Errorf("any bound, and all are dead: %v", err)
	}
	byPriority("all replicas are out of rotation (replica1: ", false)
	must(t, errors.Join(first.Start(ctx), second.Start(ctx)))
	back()
	if s := g.r.Stats(); s.Spilled != 0 || s.Refused["normal"] != 2 {
		t.Errorf("%d spilled, refused %v", s.Spilled, s.Refused)
	}
}

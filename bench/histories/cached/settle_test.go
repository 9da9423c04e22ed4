package cached

import (
	"context"
	"testing"
	"time"

	"github.com/gorminfra/infra/bench/histories/clock"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// A master that is well while the sentinels promote its replica is not the one that
// the next operations find: what it is told meanwhile is lost, which the checker has
// to know. Such a failover is begun here by command, so that it has begun for certain
// and the replica is still the master's: whoever asks the two finds all well for the
// two tenths of a second that the sentinel takes from step to step.
func TestSettleWaitsForAFailoverThatHasBegun(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	servers, err := testbed.StartRedisSentinel(ctx, testbed.RedisSentinelConfig{})
	if err != nil {
		t.Fatal(err)
	}
	p := &parent{redis: bySentinel{servers}, sentinel: servers, h: &history{}}
	t.Cleanup(func() {
		if err := p.redis.Close(); err != nil {
			t.Error(err)
		}
	})
	if p.clock, err = clock.New(); err != nil {
		t.Fatal(err)
	}
	old, err := servers.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	from := p.clock.Now()
	// It refuses until it has seen the replica in good health.
	for {
		if _, err = servers.Sentinels()[0].Do(ctx, "SENTINEL", "FAILOVER", testbed.SentinelMaster); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := p.settle(ctx, from, old); err != nil {
		t.Fatal(err)
	}
	settled, err := servers.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if settled == old {
		t.Error("it settled before the failover that had begun")
	}
	if len(p.h.restored) != 1 || p.h.restored[0].From != from {
		t.Errorf("the checker is told of %v, want one time from before the failover on", p.h.restored)
	}
}

package cached

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/bench/histories/clock"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// A master that is back while the sentinels promote its replica is not the one
// that the next operations find: what it is told meanwhile is lost, which the
// checker has to know.
func TestSettleWaitsForAFailoverThatHasBegun(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	servers, err := testbed.StartRedisSentinel(ctx, testbed.RedisSentinelConfig{})
	if err != nil {
		t.Fatal(err)
	}
	p := &parent{redis: servers, h: &history{}}
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
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	for begun := false; !begun; {
		reply, err := servers.Sentinels()[0].Do(ctx, "SENTINEL", "MASTERS")
		if err := errors.Join(err, ctx.Err()); err != nil {
			t.Fatal(err)
		}
		list, _ := reply.([]any)
		for _, master := range list {
			fields, _ := master.([]any)
			for i := 0; i+1 < len(fields); i += 2 {
				value, _ := fields[i+1].(string)
				begun = begun || fields[i] == "flags" && strings.Contains(value, "failover_in_progress")
			}
		}
	}
	if err := errors.Join(old.Start(ctx), p.settle(ctx, from, old)); err != nil {
		t.Fatal(err)
	}
	settled, err := servers.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if (settled == old) == (len(p.h.restored) > 0) {
		t.Errorf("the master is another one: %v, and the checker is told of it: %v", settled != old, len(p.h.restored) > 0)
	}
	// The sentinel has nothing more in mind: it would have switched within the time
	// that it gives a failover, a second, and the time of its looks at the replica.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		now, err := servers.Master(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if now != settled {
			t.Fatal("another master after everything had settled")
		}
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

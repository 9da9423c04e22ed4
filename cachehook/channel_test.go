package cachehook

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// A lease counts from the sending of the ping: what was published between that
// and its answer is heard only behind it.
func TestLeaseCountsFromThePingNotFromItsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := &channel{
			lease: 500 * time.Millisecond, proven: make(chan struct{}),
			now: func() int64 { return int64(time.Since(began)) + 1 },
		}
		sent := c.now()
		time.Sleep(400 * time.Millisecond) //nolint:forbidigo // of the bubble: the answer's way
		c.answered(strconv.FormatInt(sent, 10))
		if !c.healthy() {
			t.Fatal("not healthy 400 ms after the ping")
		}
		time.Sleep(99 * time.Millisecond) //nolint:forbidigo // of the bubble
		if !c.healthy() {
			t.Fatal("not healthy 499 ms after the ping")
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // of the bubble
		if c.healthy() {
			t.Fatal("healthy 500 ms after the ping: the lease counts from its answer")
		}

		// An answer that comes later than its lease proves nothing any more, and
		// an older one takes nothing back.
		late := c.now()
		time.Sleep(600 * time.Millisecond) //nolint:forbidigo // of the bubble
		c.answered(strconv.FormatInt(late, 10))
		if c.healthy() {
			t.Fatal("healthy by an answer of 600 ms ago")
		}
		fresh := c.now()
		c.answered(strconv.FormatInt(fresh, 10))
		c.answered(strconv.FormatInt(late, 10))
		if !c.healthy() {
			t.Fatal("not healthy after an older answer")
		}
		for _, bad := range []string{"", "x", "0", "-1"} {
			c.proof.Store(0)
			c.answered(bad)
			if c.healthy() {
				t.Fatalf("healthy by %q", bad)
			}
		}
	})
}

// leftBehind has its subscriptions on another server than its commands, as a
// client has after a failover: go-redis does not close the connection of a
// subscription to the old master, which may live on.
type leftBehind struct {
	redis.UniversalClient
	old redis.UniversalClient
}

func (l leftBehind) Subscribe(ctx context.Context, channels ...string) *redis.PubSub {
	return l.old.Subscribe(ctx, channels...)
}

// C07: the old master answers, and is told of nothing.
func TestC07SubscriptionToAnOldMasterProvesNothing(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server, old := testbed.SharedRedis(t), testbed.NewRedis(t, testbed.RedisConfig{})
	dsn := database(t)
	name := namespace(t)
	a := open(t, dsn, Config{Redis: clientOf(t, server.Addr()), Name: name})
	behind := leftBehind{clientOf(t, server.Addr()), clientOf(t, old.Addr())}
	b := open(t, dsn, Config{Redis: behind, Name: name, Lease: 200 * time.Millisecond})
	ready(t, a)
	eventually(t, "b subscribes", 30*time.Second, func() bool {
		n, err := behind.old.PubSubNumSub(t.Context(), b.cache.channel.name).Result()
		must(t, err)
		return n[b.cache.channel.name] > 0
	})
	for price := int64(20); price < 25; price++ {
		// It may be served from Redis, but not from memory alone.
		eventually(t, "b fills", 30*time.Second, func() bool {
			b.price(t, 1)
			return b.price(t, 1) == a.price(t, 1) && b.seen.looked(hook.Hit) > 0
		})
		a.setPrice(t, 1, price)
		time.Sleep(210 * time.Millisecond) //nolint:forbidigo // a lease passes
		equal(t, "b", b.price(t, 1), price)
		if b.cache.Stats().Trusted {
			t.Fatal("b trusts its memory, and hears nothing of what a writes")
		}
	}
}

package limithook

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed script.lua
	decideSource string
	//go:embed reset.lua
	resetSource string
	//go:embed return.lua
	returnSource string

	decideScript = redis.NewScript(decideSource)
	resetScript  = redis.NewScript(resetSource)
	returnScript = redis.NewScript(returnSource)
)

const (
	// globalKey is the account of all together.
	globalKey = "g"
	// probeKey is the account that a probe charges.
	probeKey = "p"
	// epochKey is when something else than time last made room.
	epochKey = "epoch"
	// longestDirect is the longest Timeout in which the end of a caller's context
	// need not be noticed.
	longestDirect = 100 * time.Millisecond
)

// redisLogs are the logs in Redis: two lists for each account, those of one
// decision with one hash tag, so that one script can take all of them in hand on
// a Cluster too. Keys vanish two windows after their last use, at the latest.
type redisLogs struct {
	client  redisClient
	script  *redis.Script
	timeout time.Duration
	tag     string // of the probe's keys
	bounded bool   // calls of client end when their context does

	dialer func(context.Context) error // connects once; nil: not known how
}

// redisClient is what is used of redis.UniversalClient.
type redisClient interface{ redis.Scripter }

// reply is the answer for one account, in nanoseconds.
type reply struct {
	standing
	granted int   // leased
	stamp   int64 // the instant it is charged at, as Redis keeps it
	epoch   int64 // of the share
}

// unspent is a lease to be given back.
type unspent struct {
	key   string
	share int
	stamp int64
	units int
}

func newRedisLogs(client redis.UniversalClient, name string, timeout time.Duration) *redisLogs {
	r := &redisLogs{client: client, script: decideScript, timeout: timeout, tag: tagOf(name, 1, 0)}
	c, ok := client.(*redis.Client)
	if !ok {
		return r
	}
	// The same connections with shorter reads, which a context's deadline bounds
	// also when the caller has not asked for that.
	mine := c.WithTimeout(timeout)
	if o := mine.Options(); o != c.Options() {
		o.ContextTimeoutEnabled = true
		r.bounded = true
	}
	r.client = mine
	r.dialer = func(ctx context.Context) error {
		o := c.Options()
		conn, err := o.Dialer(ctx, o.Network, o.Addr)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	return r
}

// ask puts the question to Redis and the answers into c.replies.
func (r *redisLogs) ask(ctx context.Context, c *call) error {
	var someKeys [5]string
	var someArgs [12]any
	keys, args := someKeys[:0], someArgs[:0]
	args = append(args, c.charge, c.cost)
	for i := range c.claims {
		cl := &c.claims[i]
		if cl.paid {
			continue
		}
		keys = append(keys, cl.from.keys[0])
		args = append(args, cl.limit.argMax, cl.limit.argWindow, cl.extra, cl.limit.argT, cl.arm)
	}
	for i := range c.claims {
		if cl := &c.claims[i]; !cl.paid {
			keys = append(keys, cl.from.keys[1])
		}
	}
	keys = append(keys, c.t.held.tags[c.share]+epochKey)
	v, err := r.script.Run(ctx, r.client, keys, args...).Result()
	if err != nil {
		return err
	}
	fields, ok := v.([]any)
	if !ok || len(fields) != 5*len(c.replies)+1 {
		return fmt.Errorf("unexpected answer %T of length %d", v, len(fields))
	}
	epoch, ok := fields[len(fields)-1].(int64)
	if !ok {
		return fmt.Errorf("unexpected %T in the answer", fields[len(fields)-1])
	}
	for i := range c.replies {
		if err := c.replies[i].read(fields[5*i:]); err != nil {
			return err
		}
		c.replies[i].epoch = epoch
	}
	return nil
}

func (p *reply) read(fields []any) error {
	var n [5]int64
	for i := range n {
		v, ok := fields[i].(int64)
		if !ok {
			return fmt.Errorf("unexpected %T in the answer", fields[i])
		}
		n[i] = v
	}
	p.wait, p.remaining, p.reset = n[0]*1000, int(max(0, n[1])), n[2]*1000
	p.granted, p.stamp = int(n[3]), n[4]
	return nil
}

// probe asks a question that needs what a real one needs, to write among it: a
// server that became a replica, has no memory left or cannot save reads and does not
// write. It charges an account of its own, which is no user's, for a second.
func (r *redisLogs) probe(ctx context.Context) error {
	keys := keysIn(r.tag, probeKey)
	return r.script.Run(ctx, r.client, []string{keys[0], keys[1], r.tag + epochKey}, true, 1, maxMax, 1_000_000, 0, 0, true).Err()
}

// unreachable returns why no connection can be made, nil if one can or if it is
// not known. The client itself tries in the background and for longer than a
// decision waits, so that of its calls only the lack of an answer is seen.
func (r *redisLogs) unreachable(ctx context.Context) error {
	if r.dialer == nil {
		return nil
	}
	return r.dialer(ctx)
}

// reset forgets what was charged to an account and returns the epoch that it begins.
func (r *redisLogs) reset(ctx context.Context, tag string, keys [2]string, l *limit) (epoch int64, err error) {
	return resetScript.Run(ctx, r.client, []string{keys[0], keys[1], tag + epochKey}, l.argWindow).Int64()
}

// giveBack removes unspent leases. It takes no more than a few timeouts.
func (r *redisLogs) giveBack(tags []string, back []unspent) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*r.timeout)
	defer cancel()
	for share, tag := range tags {
		var keys []string
		var args []any
		for i, u := range back {
			if u.share == share {
				keys, args = append(keys, u.key), append(args, u.stamp, u.units)
			}
			if len(keys) == 200 || len(keys) > 0 && i == len(back)-1 {
				err := returnScript.Run(ctx, r.client, append(keys, tag+epochKey), args...).Err()
				if err != nil && !errors.Is(err, redis.Nil) || ctx.Err() != nil {
					return
				}
				keys, args = keys[:0], args[:0]
			}
		}
	}
}

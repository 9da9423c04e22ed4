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

	decideScript = redis.NewScript(decideSource)
	resetScript  = redis.NewScript(resetSource)
)

// globalKey is the account of all together.
const globalKey = "g"

// redisLogs are the logs in Redis: two lists for each account, all with one
// hash tag, so that one script can take a user's and the global one in hand on
// a Cluster too. Keys vanish one window after their last use.
type redisLogs struct {
	client    redisClient
	script    *redis.Script
	logs      string // prefix of the keys
	leases    string
	globalKey [2]string
	timeout   time.Duration

	dialer func(context.Context) error // connects once; nil: not known how
}

// redisClient is what is used of redis.UniversalClient.
type redisClient interface {
	redis.Scripter
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

// reply is the answer for one account, in nanoseconds.
type reply struct {
	standing
	granted int   // leased
	stamp   int64 // the instant it is charged at, as Redis keeps it
}

// unspent is a lease to be given back.
type unspent struct {
	key   string
	stamp int64
	units int
}

func newRedisLogs(client redis.UniversalClient, name string, timeout time.Duration) *redisLogs {
	r := &redisLogs{client: client, script: decideScript, timeout: timeout}
	if c, ok := client.(interface {
		WithTimeout(time.Duration) *redis.Client
	}); ok {
		// The same connections with shorter reads: a call that was left
		// behind does not keep one for the client's own timeout.
		r.client = c.WithTimeout(timeout)
	}
	if c, ok := client.(interface{ Options() *redis.Options }); ok {
		r.dialer = func(ctx context.Context) error {
			o := c.Options()
			conn, err := o.Dialer(ctx, o.Network, o.Addr)
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
	}
	tag := "{limits:" + name + "}:"
	r.logs, r.leases = tag+"log:", tag+"lease:"
	r.globalKey = [2]string{r.logs + globalKey, r.leases + globalKey}
	return r
}

// ask puts the question to Redis and the answers into c.
func (r *redisLogs) ask(ctx context.Context, c *call) error {
	keys := make([]string, 0, 4)
	args := make([]any, 0, 10)
	args = append(args, c.charge, c.cost)
	if c.user.limit != nil {
		keys = append(keys, r.logs+c.sub.key, r.leases+c.sub.key)
		args = c.user.appendTo(args)
	}
	if c.global.limit != nil {
		keys = append(keys, r.globalKey[0], r.globalKey[1])
		args = c.global.appendTo(args)
	}
	v, err := r.script.Run(ctx, r.client, keys, args...).Result()
	if err != nil {
		return err
	}
	fields, ok := v.([]any)
	if !ok || len(fields) != len(keys)/2*5 {
		return fmt.Errorf("unexpected answer %T of length %d", v, len(fields))
	}
	if c.user.limit != nil {
		if err := c.user.reply.read(fields); err != nil {
			return err
		}
		fields = fields[5:]
	}
	if c.global.limit != nil {
		return c.global.reply.read(fields)
	}
	return nil
}

func (a *asked) appendTo(args []any) []any {
	return append(args, a.limit.max, a.limit.window, a.extra, a.limit.lease)
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

// probe asks a question that charges nobody, and needs what a real one needs.
func (r *redisLogs) probe(ctx context.Context) error {
	return r.script.Run(ctx, r.client, []string{r.globalKey[0], r.globalKey[1]}, false, 1, 1, 1000, 0, 0).Err()
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

func (r *redisLogs) reset(ctx context.Context, key string) error {
	return resetScript.Run(ctx, r.client, []string{r.logs + key, r.leases + key}).Err()
}

// giveBack removes unspent leases. It takes no more than a few timeouts.
func (r *redisLogs) giveBack(back []unspent) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*r.timeout)
	defer cancel()
	for len(back) > 0 && ctx.Err() == nil {
		n := min(len(back), 500)
		_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, u := range back[:n] {
				// Equal instants of other processes are other elements of
				// the same value: it does not matter whose are removed, only
				// how many. They are near the end.
				p.LRem(ctx, r.leases+u.key, int64(-u.units), u.stamp)
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return
		}
		back = back[n:]
	}
}

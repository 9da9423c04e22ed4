package cached

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gorminfra/infra/internal/testbed"
)

// The forms of Redis that a run can have.
const (
	Sentinel = "sentinel" // a master and its replica under a sentinel
	Cluster  = "cluster"  // three masters, each with a replica
)

// keeper is the Redis of a run, in one of its forms.
type keeper interface {
	// Nodes returns the data servers.
	Nodes() []*testbed.Redis
	// Addrs returns where a client begins.
	Addrs() []string
	FlushAll(ctx context.Context) error
	Close() error
	// pairs returns the servers by what they hold: both of a pair hold the same.
	pairs() []pair
}

// pair is a master with its replica.
type pair struct {
	name   string
	nodes  []*testbed.Redis
	master func(ctx context.Context) (*testbed.Redis, error)
}

// form is what differs where Redis has another one.
type form struct {
	start  func(ctx context.Context, p *parent) error
	faults []fault
	// The faults that start a data server anew, those in which another may become a
	// master, and of these those that lose nothing: no old answer is excused by them.
	starts, changes, agreed []string
}

var forms = map[string]form{
	Sentinel: {
		start: func(ctx context.Context, p *parent) (err error) {
			p.sentinel, err = testbed.StartRedisSentinel(ctx, testbed.RedisSentinelConfig{})
			p.redis = bySentinel{p.sentinel}
			return err
		},
		faults: []fault{
			{Name: "kill-redis", Run: killRedis},
			{Name: "restore-redis", Run: restoreRedis},
			{Name: "freeze-redis", Run: freezeRedis},
			{Name: "failover", Run: failOver},
		},
		starts:  []string{"kill-redis", "restore-redis", "failover"},
		changes: []string{"kill-redis", "restore-redis", "failover", "freeze-redis"},
	},
	Cluster: {
		start: func(ctx context.Context, p *parent) (err error) {
			// What one shard has lost the others go on without.
			settings := map[string]string{"cluster-require-full-coverage": "no"}
			p.shards, err = testbed.StartRedisCluster(ctx, testbed.RedisClusterConfig{Settings: settings})
			p.redis = inCluster{p.shards}
			return err
		},
		faults: []fault{
			{Name: "kill-shard", Run: killShard},
			{Name: "restore-shard", Run: restoreShard},
			{Name: "freeze-shard", Run: freezeShard},
			{Name: "hand-over", Run: handOver},
			{Name: "reshard", Run: reshard},
		},
		starts:  []string{"kill-shard", "restore-shard"},
		changes: []string{"kill-shard", "restore-shard", "freeze-shard", "hand-over"},
		agreed:  []string{"hand-over"},
	},
}

// faultsOf returns all faults of a run with that form of Redis.
func faultsOf(redis string) []fault {
	return append(append([]fault(nil), faults...), forms[redis].faults...)
}

type bySentinel struct{ *testbed.RedisSentinel }

func (s bySentinel) pairs() []pair { return []pair{{"the master of Redis", s.Nodes(), s.Master}} }

type inCluster struct{ *testbed.RedisCluster }

func (c inCluster) pairs() (all []pair) {
	nodes := c.Nodes()
	for i := range len(nodes) / 2 {
		both := []*testbed.Redis{nodes[i], nodes[i+len(nodes)/2]}
		all = append(all, pair{fmt.Sprintf("the master of shard %d", i), both, func(ctx context.Context) (*testbed.Redis, error) {
			return c.masterAmong(ctx, both)
		}})
	}
	return all
}

// masterAmong returns which of two the others take for the master: one that has come
// back does not know by itself that it is none any more.
func (c inCluster) masterAmong(ctx context.Context, both []*testbed.Redis) (master *testbed.Redis, err error) {
	for _, witness := range c.Nodes() {
		if witness == both[0] || witness == both[1] || !witness.Running() {
			continue
		}
		var masters []string
		if masters, err = mastersSeenBy(ctx, witness); err != nil {
			continue
		}
		for _, r := range both {
			for _, addr := range masters {
				if addr == r.Addr() {
					return r, nil
				}
			}
		}
		return nil, fmt.Errorf("%s knows no master among %s and %s", witness.Name(), both[0].Name(), both[1].Name())
	}
	return nil, errors.Join(errors.New("nobody is there to ask"), err)
}

// mastersSeenBy returns the addresses of those that a node takes for masters with
// slots, and alive.
func mastersSeenBy(ctx context.Context, witness *testbed.Redis) (addrs []string, err error) {
	reply, err := witness.Do(ctx, "CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	text, _ := reply.(string)
	for line := range strings.Lines(text) {
		// ID, address@bus, flags, master, ping, pong, epoch, link, slots
		fields := strings.Fields(line)
		if len(fields) < 9 {
			continue
		}
		flags := strings.Split(fields[2], ",")
		alive := true
		isMaster := false
		for _, f := range flags {
			alive = alive && f != "fail"
			isMaster = isMaster || f == "master"
		}
		if alive && isMaster {
			addr, _, _ := strings.Cut(fields[1], "@")
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

// someMaster is one of the masters, drawn.
func (p *parent) someMaster(ctx context.Context) (*testbed.Redis, error) {
	all := p.redis.pairs()
	return all[p.random.IntN(len(all))].master(ctx)
}

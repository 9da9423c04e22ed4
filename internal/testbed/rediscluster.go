package testbed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// redisShards is the number of masters; each has one replica.
const redisShards = 3

// RedisClusterConfig says what [StartRedisCluster] starts. The zero value
// works.
type RedisClusterConfig struct {
	// NodeTimeout is the time without an answer after which a node counts as
	// failed and its replica is elected. Default 2 s: much less and a busy
	// machine sees failovers nobody asked for.
	NodeTimeout time.Duration
	// Settings are directives of every node's redis.conf.
	Settings map[string]string
}

// RedisCluster is a Redis Cluster of six nodes: three shards of a master and a
// replica. It may be used from several goroutines.
type RedisCluster struct {
	redisGroup
	close func() error
}

// StartRedisCluster starts a Redis Cluster and waits until it serves all slots
// and the replicas are in step; about 2.3 s, 2 s of which Redis itself waits
// before a restarted master accepts writes. ctx bounds the start only. The
// caller closes it.
func StartRedisCluster(ctx context.Context, cfg RedisClusterConfig) (_ *RedisCluster, err error) {
	if cfg.NodeTimeout < 0 {
		return nil, fmt.Errorf("testbed: RedisClusterConfig.NodeTimeout = %v: must not be negative", cfg.NodeTimeout)
	}
	if cfg.NodeTimeout == 0 {
		cfg.NodeTimeout = 2 * time.Second
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	c := &RedisCluster{}
	if c.folder, err = newFolder(nil); err != nil {
		return nil, err
	}
	c.close = sync.OnceValue(c.closeAll)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.prepare(cfg); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c, c.WaitReady(ctx)
}

// prepare writes the cluster's map into every node's nodes.conf, as if it had
// existed before: no handshakes and no gossip to wait for.
func (c *RedisCluster) prepare(cfg RedisClusterConfig) error {
	lines := make([]string, 2*redisShards)
	ids := make([]string, len(lines))
	for i := range lines {
		busPort, err := freePort()
		if err != nil {
			return err
		}
		settings := map[string]string{
			"cluster-enabled":                 "yes",
			"cluster-port":                    strconv.Itoa(busPort),
			"cluster-node-timeout":            strconv.FormatInt(max(1, cfg.NodeTimeout.Milliseconds()), 10),
			"cluster-allow-replica-migration": "no",
			"cluster-config-file":             nodesFile(i),
		}
		maps.Copy(settings, cfg.Settings)
		r, err := newRedis(c.folder, "redis"+strconv.Itoa(i), settings)
		if err != nil {
			return err
		}
		c.members = append(c.members, r)
		id := make([]byte, 20)
		_, _ = rand.Read(id) // never fails
		ids[i] = hex.EncodeToString(id)

		shard := i % redisShards
		role, slots := "master -", fmt.Sprintf(" %d-%d", 16384*shard/redisShards, 16384*(shard+1)/redisShards-1)
		if i >= redisShards {
			role, slots = "slave "+ids[shard], ""
		}
		lines[i] = fmt.Sprintf("%s %s@%d %s 0 0 %d connected%s", ids[i], r.Addr(), busPort, role, shard+1, slots)
	}
	for i := range lines {
		own := append([]string(nil), lines...)
		own[i] = strings.NewReplacer(" master", " myself,master", " slave", " myself,slave").Replace(own[i])
		text := strings.Join(own, "\n") + fmt.Sprintf("\nvars currentEpoch %d lastVoteEpoch 0\n", redisShards)
		if err := os.WriteFile(filepath.Join(c.folder.path, nodesFile(i)), []byte(text), 0o600); err != nil {
			return fmt.Errorf("testbed: redis cluster: %w", err)
		}
	}
	return nil
}

func nodesFile(i int) string { return fmt.Sprintf("nodes%d.conf", i) }

// Addrs returns the addresses of all nodes, for a cluster client.
func (c *RedisCluster) Addrs() []string { return addrs(c.members) }

func addrs(members []*Redis) []string {
	list := make([]string, len(members))
	for i, r := range members {
		list[i] = r.Addr()
	}
	return list
}

// Nodes returns all nodes. Nodes i and i+3 are shard i; at the start the first
// is its master.
func (c *RedisCluster) Nodes() []*Redis { return append([]*Redis(nil), c.members...) }

// Shard returns the present master and replica of shard 0, 1 or 2. Shards hold
// the slots in order, a third each. A node that does not run counts as the
// replica.
func (c *RedisCluster) Shard(ctx context.Context, shard int) (master, replica *Redis, err error) {
	a, b := c.members[shard], c.members[shard+redisShards]
	if !a.Running() {
		return b, a, nil
	}
	if !b.Running() {
		return a, b, nil
	}
	isMaster, err := a.isMaster(ctx)
	if !isMaster {
		a, b = b, a
	}
	return a, b, err
}

// Failover makes a shard's replica its master, in agreement with the old one,
// and waits until every node knows.
func (c *RedisCluster) Failover(ctx context.Context, shard int) error {
	_, replica, err := c.Shard(ctx, shard)
	if err != nil {
		return err
	}
	if err := replica.waitReplicating(ctx); err != nil {
		return err
	}
	id, err := replica.Do(ctx, "CLUSTER", "MYID")
	if err != nil {
		return err
	}
	if _, err := replica.Do(ctx, "CLUSTER", "FAILOVER"); err != nil {
		return err
	}
	return each(c.running(), func(r *Redis) error {
		return until(ctx, r.name+" to see the failover", func(ctx context.Context) (bool, error) {
			nodes, err := r.Do(ctx, "CLUSTER", "NODES")
			text, _ := nodes.(string)
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, fmt.Sprint(id)) && strings.Contains(line, "master") {
					return true, nil
				}
			}
			return false, err
		})
	})
}

// WaitReady waits until all running nodes see all slots served and, where
// they are replicas, are in step with their master.
func (c *RedisCluster) WaitReady(ctx context.Context) error {
	return each(c.running(), func(r *Redis) error {
		if err := r.waitInfo(ctx, "cluster_state", "ok", "CLUSTER", "INFO"); err != nil {
			return err
		}
		isMaster, err := r.isMaster(ctx)
		if err != nil || isMaster {
			return err
		}
		return r.waitReplicating(ctx)
	})
}

// FlushAll removes all keys of all shards.
func (c *RedisCluster) FlushAll(ctx context.Context) error {
	for shard := range redisShards {
		master, _, err := c.Shard(ctx, shard)
		if err != nil {
			return err
		}
		if err := master.FlushAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close stops all nodes and removes their files. It is idempotent.
func (c *RedisCluster) Close() error { return c.close() }

func (c *RedisCluster) running() []*Redis {
	var running []*Redis
	for _, r := range c.members {
		if r.Running() {
			running = append(running, r)
		}
	}
	return running
}

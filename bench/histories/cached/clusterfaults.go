package cached

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// someShard is one of a Cluster's, with its master and replica.
func (p *parent) someShard(ctx context.Context) (master, replica *testbed.Redis, err error) {
	all := p.redis.pairs()
	g := all[p.random.IntN(len(all))]
	if master, err = g.master(ctx); err != nil {
		return nil, nil, err
	}
	replica = g.nodes[0]
	if replica == master {
		replica = g.nodes[1]
	}
	return master, replica, nil
}

// killShard ends a shard's master. It is back soon, empty, or so late that the others
// have promoted its replica, which may not have been told of the last writes.
func killShard(ctx context.Context, p *parent) error {
	master, replica, err := p.someShard(ctx)
	if err != nil {
		return err
	}
	if err := forgetSnapshot(ctx, master); err != nil {
		return err
	}
	if err := master.Kill(); err != nil {
		return err
	}
	if p.random.IntN(2) == 0 {
		err = p.between(ctx, 10*time.Millisecond, 500*time.Millisecond)
	} else {
		err = p.until(ctx, func() (bool, error) {
			is, err := inCluster{p.shards}.masterAmong(ctx, []*testbed.Redis{master, replica})
			return is == replica, err
		})
	}
	return errors.Join(err, master.Start(ctx), p.settleShards(ctx))
}

// restoreShard lets a shard's master start again from a snapshot.
func restoreShard(ctx context.Context, p *parent) error {
	master, _, err := p.someShard(ctx)
	if err != nil {
		return err
	}
	from, err := p.startFromSnapshot(ctx, master)
	if err != nil {
		return err
	}
	err = p.settleShards(ctx)
	p.restored(from)
	return err
}

// freezeShard stops a shard's master where it stands, mostly not so long that it is
// taken for dead.
func freezeShard(ctx context.Context, p *parent) error {
	master, _, err := p.someShard(ctx)
	if err != nil {
		return err
	}
	if err := master.Freeze(); err != nil {
		return err
	}
	return errors.Join(p.between(ctx, 100*time.Millisecond, 1500*time.Millisecond), master.Thaw(), p.settleShards(ctx))
}

// handOver has a shard's replica take over in agreement with its master, which loses
// nothing.
func handOver(ctx context.Context, p *parent) error {
	_, replica, err := p.someShard(ctx)
	if err != nil {
		return err
	}
	if _, err := replica.Do(ctx, "CLUSTER", "FAILOVER"); err != nil {
		return err
	}
	err = p.until(ctx, func() (bool, error) {
		role := replication(ctx, replica)["role"]
		return role == "master", nil
	})
	return errors.Join(err, p.settleShards(ctx))
}

// channelKey is a key in the slot of the channel of messages.
const channelKey = "infra:" + cacheName + ":cache:{" + cacheName + "}:messages"

// reshard moves slots from one shard to another while they are read and written: that
// of the channel of messages first, and some that hold tags and results.
func reshard(ctx context.Context, p *parent) error {
	keys, err := []string{channelKey}, error(nil)
	for range 12 {
		if err != nil {
			return err
		}
		var key string
		if key, err = p.someKey(ctx); key != "" && !slices.Contains(keys, key) { // each once: it would come back
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		err = errors.Join(err, p.move(ctx, key), p.between(ctx, 0, 60*time.Millisecond))
	}
	return errors.Join(err, p.settleShards(ctx))
}

// someKey is one of those that there are; empty when there is none.
func (p *parent) someKey(ctx context.Context) (string, error) {
	master, err := p.someMaster(ctx)
	if err != nil {
		return "", err
	}
	reply, err := master.Do(ctx, "EVAL", "return redis.call('RANDOMKEY') or ''", 0)
	key, _ := reply.(string)
	return key, err
}

// move moves a key's slot with all that is in it to another shard, as redis-cli does.
func (p *parent) move(ctx context.Context, key string) error {
	var masters []*testbed.Redis
	owner := -1
	for _, g := range p.redis.pairs() {
		master, err := g.master(ctx)
		if err != nil {
			return err
		}
		if _, err := master.Do(ctx, "EXISTS", key); err == nil { // the others say who has it
			owner = len(masters)
		}
		masters = append(masters, master)
	}
	if owner < 0 {
		return fmt.Errorf("nobody has the slot of %q", key)
	}
	from, to := masters[owner], masters[(owner+1+p.random.IntN(len(masters)-1))%len(masters)]
	var err error
	do := func(node *testbed.Redis, args ...any) (reply any) {
		if err == nil {
			reply, err = node.Do(ctx, args...)
		}
		return reply
	}
	slot := do(from, "CLUSTER", "KEYSLOT", key)
	fromID, toID := do(from, "CLUSTER", "MYID"), do(to, "CLUSTER", "MYID")
	do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	for err == nil {
		err = p.between(ctx, 0, 20*time.Millisecond) // some find their keys here, some there
		keys, _ := do(from, "CLUSTER", "GETKEYSINSLOT", slot, 10).([]any)
		if len(keys) == 0 {
			break
		}
		do(from, append([]any{"MIGRATE", "127.0.0.1", fmt.Sprint(to.Port()), "", 0, 5000, "KEYS"}, keys...)...)
	}
	for _, node := range []*testbed.Redis{to, from} {
		do(node, "CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
	if err != nil {
		return fmt.Errorf("move slot %v from %s to %s: %w", slot, from.Name(), to.Name(), err)
	}
	return nil
}

// settleShards waits until all servers agree who the masters are, and each has its
// replica, so that the next fault finds both.
func (p *parent) settleShards(ctx context.Context) error {
	return p.until(ctx, func() (bool, error) {
		var first []string
		for _, r := range p.redis.Nodes() {
			seen, err := mastersSeenBy(ctx, r)
			slices.Sort(seen)
			if first == nil {
				first = seen
			}
			if err != nil || !slices.Equal(seen, first) {
				return false, err
			}
			reply, err := r.Do(ctx, "CLUSTER", "INFO")
			if err != nil || fieldsOf(reply)["cluster_state"] != "ok" {
				return false, err
			}
			is := replication(ctx, r)
			if isMaster := slices.Contains(seen, r.Addr()); isMaster != (is["role"] == "master") ||
				isMaster && is["connected_slaves"] != "1" || !isMaster && is["master_link_status"] != "up" {
				return false, nil
			}
		}
		return len(first) == len(p.redis.pairs()), nil
	})
}

// until asks until the answer is yes. An error is no answer, and the last of them is
// told when the time is over.
func (p *parent) until(ctx context.Context, yes func() (bool, error)) error {
	for {
		ok, err := yes()
		if err == nil && ok {
			return nil
		}
		if ended := p.between(ctx, 10*time.Millisecond, 30*time.Millisecond); ended != nil {
			return fmt.Errorf("wait for Redis: %w", errors.Join(ended, err))
		}
	}
}

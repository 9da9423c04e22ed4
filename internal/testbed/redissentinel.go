package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// SentinelMaster is the name under which the sentinels know the master.
const SentinelMaster = "testbed"

// RedisSentinelConfig says what [StartRedisSentinel] starts. The zero value
// works.
type RedisSentinelConfig struct {
	// Sentinels is their number, 1 to 3; a majority decides. Default 1.
	Sentinels int
	// DownAfter is the time without an answer after which the master counts as
	// down. Default 1 s.
	DownAfter time.Duration
	// Settings are directives of both data servers' redis.conf.
	Settings map[string]string
}

// RedisSentinel is a master and a replica under the eyes of sentinels. It may
// be used from several goroutines.
type RedisSentinel struct {
	redisGroup // the data servers first
	close      func() error
}

// sentinelData is the number of data servers: a master and a replica.
const sentinelData = 2

// StartRedisSentinel starts a master, a replica and sentinels, and waits until
// the replica is in step and every sentinel knows it and its peers; about
// 0.2 s with one sentinel, 2 s with more. ctx bounds the start only. The
// caller closes it.
func StartRedisSentinel(ctx context.Context, cfg RedisSentinelConfig) (_ *RedisSentinel, err error) {
	if cfg.Sentinels < 0 || cfg.Sentinels > 3 {
		return nil, fmt.Errorf("testbed: RedisSentinelConfig.Sentinels = %d: must be between 0 and 3", cfg.Sentinels)
	}
	if cfg.DownAfter < 0 {
		return nil, fmt.Errorf("testbed: RedisSentinelConfig.DownAfter = %v: must not be negative", cfg.DownAfter)
	}
	cfg.Sentinels = max(1, cfg.Sentinels)
	if cfg.DownAfter == 0 {
		cfg.DownAfter = time.Second
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	s := &RedisSentinel{}
	if s.folder, err = newFolder(nil); err != nil {
		return nil, err
	}
	s.close = sync.OnceValue(s.closeAll)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()

	for i := range sentinelData {
		r, err := newRedis(s.folder, "redis"+strconv.Itoa(i), cfg.Settings)
		if err != nil {
			return nil, err
		}
		s.members = append(s.members, r)
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	// By command rather than by configuration: a server that starts again is a
	// master until a sentinel tells it otherwise, whatever it was at first.
	master, replica := s.members[0], s.members[1]
	if _, err := replica.Do(ctx, "REPLICAOF", "127.0.0.1", master.Port()); err != nil {
		return nil, err
	}
	if err := replica.waitReplicating(ctx); err != nil {
		return nil, err
	}
	if err := master.waitOnline(ctx); err != nil {
		return nil, err
	}
	for i := range cfg.Sentinels {
		r, err := s.newSentinel(i, cfg)
		if err != nil {
			return nil, err
		}
		s.members = append(s.members, r)
		if err := r.Start(ctx); err != nil {
			return nil, err
		}
	}
	return s, s.waitComplete(ctx)
}

func (s *RedisSentinel) newSentinel(i int, cfg RedisSentinelConfig) (*Redis, error) {
	r, err := newRedisProcess(s.folder, "sentinel"+strconv.Itoa(i))
	if err != nil {
		return nil, err
	}
	// Sentinels keep their state in their configuration file. They wait twice
	// the failover-timeout between two failovers; Redis's default is 3 minutes.
	path := filepath.Join(s.folder.path, r.name+".conf")
	text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %q\n"+
		"sentinel monitor %[3]s 127.0.0.1 %[4]d %[5]d\n"+
		"sentinel down-after-milliseconds %[3]s %[6]d\nsentinel failover-timeout %[3]s %[7]d\n",
		r.port, s.folder.path, SentinelMaster, s.members[0].port, cfg.Sentinels/2+1,
		max(1, cfg.DownAfter.Milliseconds()), max(1, cfg.DownAfter.Milliseconds()))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("testbed: %s: %w", r.name, err)
	}
	r.proc.args = []string{path, "--sentinel"}
	r.proc.deathSig = syscall.SIGKILL
	return r, nil
}

// waitComplete waits until every sentinel knows the replica and its peers.
func (s *RedisSentinel) waitComplete(ctx context.Context) error {
	peers := strconv.Itoa(len(s.Sentinels()) - 1)
	return each(s.Sentinels(), func(r *Redis) error {
		return until(ctx, r.name+" to know all servers", func(ctx context.Context) (bool, error) {
			fields, err := r.sentinelMaster(ctx)
			return fields["num-slaves"] == "1" && fields["num-other-sentinels"] == peers, err
		})
	})
}

// sentinelMaster asks a sentinel for all that it knows of the master.
func (r *Redis) sentinelMaster(ctx context.Context) (map[string]string, error) {
	reply, err := r.Do(ctx, "SENTINEL", "MASTER", SentinelMaster)
	if err != nil {
		return nil, err
	}
	list, _ := reply.([]any)
	fields := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		fields[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return fields, nil
}

// Addrs returns the addresses of the sentinels, for a failover client.
func (s *RedisSentinel) Addrs() []string { return addrs(s.Sentinels()) }

// Nodes returns the two data servers, the first master first.
func (s *RedisSentinel) Nodes() []*Redis { return append([]*Redis(nil), s.members[:sentinelData]...) }

// Sentinels returns the sentinels.
func (s *RedisSentinel) Sentinels() []*Redis {
	return append([]*Redis(nil), s.members[sentinelData:]...)
}

// Master returns the master as the first running sentinel sees it.
func (s *RedisSentinel) Master(ctx context.Context) (*Redis, error) {
	for _, sentinel := range s.Sentinels() {
		if !sentinel.Running() {
			continue
		}
		fields, err := sentinel.sentinelMaster(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range s.Nodes() {
			if fields["port"] == strconv.Itoa(r.port) {
				return r, nil
			}
		}
		return nil, fmt.Errorf("testbed: %s: no data server of ours is the master: %v", sentinel.name, fields)
	}
	return nil, errors.New("testbed: no sentinel runs")
}

// Failover has the sentinels promote the replica although the master lives,
// and waits until the old master is the new one's replica. To see a failover
// that the sentinels decide, kill or freeze the master and use
// [RedisSentinel.WaitFailover].
func (s *RedisSentinel) Failover(ctx context.Context) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	old, err := s.Master(ctx)
	if err != nil {
		return err
	}
	// A sentinel refuses until it has seen the replica in good health.
	err = until(ctx, "a sentinel to begin the failover", func(ctx context.Context) (bool, error) {
		_, err := s.Sentinels()[0].Do(ctx, "SENTINEL", "FAILOVER", SentinelMaster)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	if err := s.WaitFailover(ctx, old); err != nil {
		return err
	}
	return old.waitReplicating(ctx)
}

// WaitFailover waits until all running sentinels name a master other than old
// and it accepts writes.
func (s *RedisSentinel) WaitFailover(ctx context.Context, old *Redis) error {
	next := s.members[0]
	if next == old {
		next = s.members[1]
	}
	if err := next.waitInfo(ctx, "role", "master", "INFO", "replication"); err != nil {
		return err
	}
	return each(s.Sentinels(), func(r *Redis) error {
		if !r.Running() {
			return nil
		}
		return until(ctx, r.name+" to name "+next.name, func(ctx context.Context) (bool, error) {
			fields, err := r.sentinelMaster(ctx)
			return fields["port"] == strconv.Itoa(next.port), err
		})
	})
}

// FlushAll removes all keys of the present master.
func (s *RedisSentinel) FlushAll(ctx context.Context) error {
	master, err := s.Master(ctx)
	if err != nil {
		return err
	}
	return master.FlushAll(ctx)
}

// Close stops all servers and removes their files. It is idempotent.
func (s *RedisSentinel) Close() error { return s.close() }

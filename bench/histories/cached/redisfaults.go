package cached

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

func flushRedis(ctx context.Context, p *parent) error {
	for range 3 {
		if err := errors.Join(p.redis.FlushAll(ctx), p.between(ctx, 20*time.Millisecond, 200*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// evictKeys removes keys at random, as a Redis that is short of memory does.
func evictKeys(ctx context.Context, p *parent) error {
	master, err := p.someMaster(ctx)
	if err != nil {
		return err
	}
	// What is used all the time is never the least recently used.
	const script = `for i = 1, 10 do
		local k = redis.call('RANDOMKEY')
		if k and not string.find(k, ':tables$') then redis.call('DEL', k) end
	end
	return 1`
	for range 10 {
		if _, err := master.Do(ctx, "EVAL", script, 0); err != nil {
			return err
		}
		if err := p.between(ctx, 10*time.Millisecond, 60*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// killRedis ends the master, which is back soon, empty.
func killRedis(ctx context.Context, p *parent) error {
	master, err := p.sentinel.Master(ctx)
	if err != nil {
		return err
	}
	if err := forgetSnapshot(ctx, master); err != nil {
		return err
	}
	from := p.clock.Now()
	if err := master.Kill(); err != nil {
		return err
	}
	return errors.Join(p.between(ctx, 10*time.Millisecond, 500*time.Millisecond), master.Start(ctx), p.settle(ctx, from, master))
}

// forgetSnapshot removes what the server would start from.
func forgetSnapshot(ctx context.Context, r *testbed.Redis) error {
	path, err := snapshot(ctx, r)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func snapshot(ctx context.Context, r *testbed.Redis) (string, error) {
	var parts []string
	for _, setting := range []string{"dir", "dbfilename"} {
		reply, err := r.Do(ctx, "CONFIG", "GET", setting)
		if err != nil {
			return "", err
		}
		pair, _ := reply.([]any)
		if len(pair) != 2 {
			return "", fmt.Errorf("CONFIG GET %s: %v", setting, reply)
		}
		text, _ := pair[1].(string)
		parts = append(parts, text)
	}
	return filepath.Join(parts...), nil
}

// restoreRedis lets the master start again from a snapshot.
func restoreRedis(ctx context.Context, p *parent) error {
	master, err := p.sentinel.Master(ctx)
	if err != nil {
		return err
	}
	from, err := p.startFromSnapshot(ctx, master)
	if err != nil {
		return err
	}
	p.restored(from)
	return p.settle(ctx, from, master)
}

// startFromSnapshot lets a master start again from a snapshot, after writes that are
// not in it: its old stamps come back together with the results that were kept under
// them. It returns when they were lost.
func (p *parent) startFromSnapshot(ctx context.Context, master *testbed.Redis) (from int64, err error) {
	if _, err := master.Do(ctx, "SAVE"); err != nil {
		return 0, err
	}
	if err := p.between(ctx, 100*time.Millisecond, time.Second); err != nil {
		return 0, err
	}
	from = p.clock.Now()
	if err := master.Kill(); err != nil {
		return 0, err
	}
	return from, errors.Join(p.between(ctx, 10*time.Millisecond, 300*time.Millisecond), master.Start(ctx))
}

// restored notes that Redis has lost what it was told last, since a time until
// now.
func (p *parent) restored(from int64) {
	p.h.restored = append(p.h.restored, run.Span{From: from, To: p.clock.Now() + int64(lease+recovers)})
}

// failOver has a replica of Redis promoted: by the sentinels' own judgement of a
// dead master, or as for maintenance. The old one comes back before anybody has
// told it that it is no master any more.
func failOver(ctx context.Context, p *parent) error {
	master, err := p.sentinel.Master(ctx)
	if err != nil {
		return err
	}
	from := p.clock.Now()
	if p.random.IntN(2) == 0 {
		return errors.Join(p.askOther(ctx, master), p.settle(ctx, from, master))
	}
	if err := master.Kill(); err != nil {
		return err
	}
	if err := p.between(ctx, 100*time.Millisecond, 1500*time.Millisecond); err != nil {
		return err
	}
	return errors.Join(master.Start(ctx), p.settle(ctx, from, master))
}

// askOther has the sentinels promote the replica, and waits until they name it.
// They refuse while they are about to do so of themselves.
func (p *parent) askOther(ctx context.Context, old *testbed.Redis) error {
	for {
		_, refused := p.sentinel.Sentinels()[0].Do(ctx, "SENTINEL", "FAILOVER", testbed.SentinelMaster)
		if master, err := p.sentinel.Master(ctx); err == nil && master != old {
			return nil
		}
		if err := p.between(ctx, 10*time.Millisecond, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for another master: %w", errors.Join(err, refused))
		}
	}
}

// deposedFor is how long an old master may live beside the new one. Sentinels
// take ten seconds to make it a replica.
const deposedFor = time.Second

// settle waits until there is a master with a replica again, which the sentinels
// are content with, so that the next fault finds both. If it is another than before,
// what the old one was told last may be lost since a time. A server that was away
// for a few milliseconds can be taken for dead, as its last answer may be older than
// that, and the failover that has begun goes on although it is back: its replica
// is promoted and is told of nothing more until the sentinels name it, a second and
// a half after everything looks well.
func (p *parent) settle(ctx context.Context, from int64, old *testbed.Redis) error {
	began := p.clock.Now()
	since := began
	for {
		master, err := p.sentinel.Master(ctx)
		if err == nil && master != old {
			p.restored(from)
			old, since = master, p.clock.Now()
		}
		content := false
		if err == nil {
			content, err = p.content(ctx, time.Duration(p.clock.Now()-began))
		}
		if err == nil && content {
			var reply any
			if reply, err = master.Do(ctx, "INFO", "replication"); err == nil {
				text, _ := reply.(string)
				if strings.Contains(text, "role:master") && strings.Contains(text, "state=online") {
					// Not between the two questions either.
					if now, err := p.sentinel.Master(ctx); err == nil && now == old {
						return nil
					}
					continue
				}
				if p.clock.Now()-since > int64(deposedFor) {
					err = p.depose(ctx, master)
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the master gets no replica: %w", errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// content reports whether every sentinel has had an answer of the master since a
// time ago, and is about to do nothing.
func (p *parent) content(ctx context.Context, ago time.Duration) (bool, error) {
	for _, sentinel := range p.sentinel.Sentinels() {
		reply, err := sentinel.Do(ctx, "SENTINEL", "MASTER", testbed.SentinelMaster)
		if err != nil {
			return false, err
		}
		list, _ := reply.([]any)
		fields := make(map[string]string, len(list)/2)
		for i := 0; i+1 < len(list); i += 2 {
			fields[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
		}
		answered, err := strconv.ParseInt(fields["last-ok-ping-reply"], 10, 64)
		if err != nil {
			return false, fmt.Errorf("%v: %w", fields, err)
		}
		if fields["flags"] != "master" || time.Duration(answered)*time.Millisecond >= ago {
			return false, nil
		}
	}
	return true, nil
}

// depose makes the server that is not the master its replica.
func (p *parent) depose(ctx context.Context, master *testbed.Redis) error {
	for _, r := range p.redis.Nodes() {
		if r != master && r.Running() {
			if _, err := r.Do(ctx, "REPLICAOF", "127.0.0.1", master.Port()); err != nil {
				return err
			}
		}
	}
	return nil
}

func freezeRedis(ctx context.Context, p *parent) error {
	master, err := p.sentinel.Master(ctx)
	if err != nil {
		return err
	}
	from := p.clock.Now()
	if err := master.Freeze(); err != nil {
		return err
	}
	// Mostly not so long that it is taken for dead.
	return errors.Join(p.between(ctx, 100*time.Millisecond, 900*time.Millisecond), master.Thaw(), p.settle(ctx, from, master))
}

func dropClients(ctx context.Context, p *parent) error {
	for range 3 {
		master, err := p.someMaster(ctx)
		if err != nil {
			return err
		}
		if _, err := master.ClientKill(ctx); err != nil {
			return err
		}
		if err := p.between(ctx, 50*time.Millisecond, 300*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

package cached

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
)

// child is one life of a worker. The proxies between it and each Redis are those
// of its next life too.
type child struct {
	parent             *parent
	index              int
	inst               uint8
	commands, messages map[string]*testbed.Proxy // by the address of a Redis

	process  *run.Process
	log      string
	answers  chan answer
	ops      atomic.Int64
	stats    *cachehook.Stats // once ended, unless killed
	refusals map[string]int   // once ended, unless killed
}

func (p *parent) newChild(index int) (*child, error) {
	w := &child{parent: p, index: index, commands: map[string]*testbed.Proxy{}, messages: map[string]*testbed.Proxy{}}
	for _, r := range p.redis.Nodes() {
		for _, into := range []map[string]*testbed.Proxy{w.commands, w.messages} {
			proxy, err := testbed.StartProxy(r.Addr())
			if err != nil {
				return nil, err
			}
			into[r.Addr()] = proxy
		}
	}
	return w, nil
}

func (w *child) closeProxies() (err error) {
	for _, proxies := range []map[string]*testbed.Proxy{w.commands, w.messages} {
		for _, proxy := range proxies {
			err = errors.Join(err, proxy.Close())
		}
	}
	return err
}

// maxLives is how many an instance's number can tell apart.
const maxLives = 1 << instBits

// kinds of workers: the first are split and cache no leaves, the second work in
// scopes, the third ask Redis at each hit.
const kinds = 3

// startLife starts the process. Workers differ in what they promise.
func (p *parent) startLife(ctx context.Context, w *child) error {
	if len(p.lives)+1 >= maxLives {
		return fmt.Errorf("more than %d lives", maxLives)
	}
	w.inst = uint8(len(p.lives) + 1) // 0 is that of the parent's own looks
	w.log = p.logPath(w.inst)
	w.answers = make(chan answer, 16)
	cfg := workerConfig{
		Index: w.index, Inst: w.inst, Seed: p.settings.Seed,
		Commands: map[string]string{}, Messages: map[string]string{},
		Lease: lease, Readers: p.settings.Readers, Writers: 2, Pause: 4 * time.Millisecond,
		TTL: ttl, MaxLag: maxLag, Interval: interval, Log: w.log, Entries: 1000, Leaves: true,
	}
	switch w.index % kinds {
	case 0:
		cfg.Split, cfg.Leaves = true, false
	case 1:
		cfg.Scoped = true
	case 2:
		// Its memory is so small that it reads the second level, and what that has
		// lost, all the time.
		cfg.Lease, cfg.FailWrite, cfg.Entries = cachehook.RevalidateAlways, true, 8
	}
	p.h.instances[w.inst] = instance{lease: max(0, int64(cfg.Lease)), failWrite: cfg.FailWrite, scoped: cfg.Scoped}
	primary := p.cluster.Primary()
	cfg.Nodes = append(cfg.Nodes, nodeConfig{primary.Name(), primary.DSN("")})
	for i, n := range p.cluster.Replicas() {
		cfg.Nodes = append(cfg.Nodes, nodeConfig{n.Name(), testbed.DSN(p.links[i].Addr(), "")})
	}
	for addr, proxy := range w.commands {
		cfg.Commands[addr], cfg.Messages[addr] = proxy.Addr(), w.messages[addr].Addr()
	}
	cfg.Redis, cfg.Addrs = p.settings.Redis, p.redis.Addrs()
	process, err := run.Start(ctx, WorkerEnv, cfg, w.hear, w.fail)
	if err != nil {
		return err
	}
	w.process = process
	p.lives = append(p.lives, w)
	return nil
}

// nextLife is a child with the same place and proxies.
func (w *child) nextLife() *child {
	return &child{parent: w.parent, index: w.index, commands: w.commands, messages: w.messages}
}

// hear takes in what a worker says.
func (w *child) hear(line []byte) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		a = answer{Did: "failed", Error: err.Error()}
	}
	switch a.Did {
	case "progress":
		w.ops.Store(a.Ops)
	case "stop":
		w.stats, w.refusals = a.Stats, a.Refusals
	case "failed":
		w.fail(errors.New(a.Error))
	default:
		w.answers <- a
	}
}

// fail notes the failure of a worker, if it is one.
func (w *child) fail(err error) {
	if err == nil {
		return
	}
	select {
	case w.parent.failure <- fmt.Errorf("worker %d: %w", w.index, err):
	default:
	}
}

func (w *child) await(ctx context.Context, did string) error {
	for {
		select {
		case a := <-w.answers:
			if a.Did == did {
				return nil
			}
		case <-w.process.Ended():
			select {
			case err := <-w.parent.failure:
				return err
			default:
				return fmt.Errorf("worker %d ended before it said %s", w.index, did)
			}
		case <-ctx.Done():
			return fmt.Errorf("worker %d: wait for %s: %w", w.index, did, ctx.Err())
		}
	}
}

func (w *child) stop(ctx context.Context) error {
	w.process.Tell(command{Do: "stop"})
	select {
	case <-w.process.Ended():
		return nil
	case <-time.After(60 * time.Second):
		return fmt.Errorf("worker %d does not stop", w.index)
	case <-ctx.Done():
		return ctx.Err()
	}
}

package cached

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

// fault is something that happens while the workers work.
type fault = run.Fault[*parent]

// faults are those of any run. Those of Redis depend on its form.
var faults = []fault{
	{Name: "pause", Run: pauseReplay},
	{Name: "park", Run: parkReaders},
	{Name: "flush", Run: flushRedis},
	{Name: "evict", Run: evictKeys},
	{Name: "drop-clients", Run: dropClients},
	{Name: "deafen", Run: deafen},
	{Name: "isolate", Run: isolate},
	{Name: "schema", Run: changeSchema},
	{Name: "deaf-schema", Run: changeSchemaOfTheDeaf},
	{Name: "kill-worker", Run: killWorker},
	{Name: "freeze-worker", Run: freezeWorker},
}

// schedule lets the faults happen until enough was done.
func (p *parent) schedule(ctx context.Context) error {
	s := run.Schedule[*parent]{
		Faults: p.settings.faults, Order: p.random.Perm, Failure: p.failure, Now: p.clock.Now,
		Pause:  func(ctx context.Context) error { return p.between(ctx, time.Second, 4*time.Second) },
		Enough: func() bool { return p.ops() >= p.settings.Ops },
	}
	return s.Run(ctx, p, p.happened)
}

func (p *parent) between(ctx context.Context, least, most time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(least + rand.N(most-least+1)):
		return nil
	}
}

func (p *parent) someWorker() *child { return p.workers[p.random.IntN(len(p.workers))] }

// pauseReplay makes a replica, and with luck all of them, keep what they have.
func pauseReplay(ctx context.Context, p *parent) error {
	replicas := p.cluster.Replicas()
	p.random.Shuffle(len(replicas), func(i, j int) { replicas[i], replicas[j] = replicas[j], replicas[i] })
	replicas = replicas[:1+p.random.IntN(len(replicas))]
	for _, r := range replicas {
		if err := r.PauseReplay(ctx); err != nil {
			return err
		}
	}
	err := p.between(ctx, 300*time.Millisecond, 3*maxLag/2)
	for _, r := range replicas {
		err = errors.Join(err, r.ResumeReplay(ctx))
	}
	return err
}

// parkReaders holds up the answers of the replicas, again and again, and has a row
// written meanwhile: those who read it are parked between their snapshot and their
// fill, and the write overtakes them.
func parkReaders(ctx context.Context, p *parent) error {
	err := p.askAll(ctx, "meet")
	for n := 0; n < 6 && err == nil; n++ {
		err = p.parkOnce(ctx)
	}
	return errors.Join(err, p.askAll(ctx, "calm"))
}

func (p *parent) parkOnce(ctx context.Context) error {
	// What the last write invalidated comes from the primary at first, until
	// replicas are known to have it.
	if err := p.between(ctx, 3*interval, 5*interval); err != nil {
		return err
	}
	for _, link := range p.links {
		link.Blackhole(testbed.ToClient)
	}
	err := errors.Join(p.dropResults(ctx), p.between(ctx, 80*time.Millisecond, 120*time.Millisecond))
	w := p.someWorker()
	w.process.Tell(command{Do: "write"})
	err = errors.Join(err, w.await(ctx, "write"))
	for _, link := range p.links {
		err = errors.Join(err, link.Restore())
	}
	return err
}

// press makes Redis short of memory until ctx ends: it drops results now and
// then, so that many are read again when replicas have long had the last write.
func (p *parent) press(ctx context.Context) {
	for p.between(ctx, 300*time.Millisecond, 900*time.Millisecond) == nil {
		_ = p.dropResults(ctx) // it may be down
	}
}

// dropResults drops the results in Redis, and no tag.
func (p *parent) dropResults(ctx context.Context) error {
	for _, g := range p.redis.pairs() {
		master, err := g.master(ctx)
		if err != nil {
			return err
		}
		if _, err := master.Do(ctx, "EVAL", `for _, k in ipairs(redis.call('KEYS', '*:cache:e:*')) do redis.call('DEL', k) end return 1`, 0); err != nil {
			return err
		}
	}
	return nil
}

// deafen keeps all messages from a worker that still reaches Redis, while nobody
// writes but another one, now and then, where all read.
func deafen(ctx context.Context, p *parent) error {
	split := kinds * p.random.IntN((len(p.workers)+kinds-1)/kinds)
	err := errors.Join(p.askAll(ctx, "meet"), p.between(ctx, lease, 2*lease))
	for _, proxy := range p.workers[split].messages {
		proxy.Blackhole()
	}
	for n := 0; n < 4 && err == nil; n++ {
		other := p.workers[(split+1)%len(p.workers)]
		other.process.Tell(command{Do: "write"})
		err = errors.Join(other.await(ctx, "write"), p.between(ctx, 3*lease/2, 2*lease))
	}
	for _, proxy := range p.workers[split].messages {
		err = errors.Join(err, proxy.Restore())
	}
	return errors.Join(err, p.askAll(ctx, "calm"))
}

// isolate keeps one worker from Redis altogether.
func isolate(ctx context.Context, p *parent) error {
	w := p.someWorker()
	return p.blackhole(ctx, w.messages, w.commands)
}

func (p *parent) blackhole(ctx context.Context, links ...map[string]*testbed.Proxy) error {
	for _, proxies := range links {
		for _, proxy := range proxies {
			proxy.Blackhole()
		}
	}
	err := p.between(ctx, lease, 5*lease)
	for _, proxies := range links {
		for _, proxy := range proxies {
			err = errors.Join(err, proxy.Restore())
		}
	}
	return err
}

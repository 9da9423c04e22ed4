package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

// fault is something that happens to the servers, or to a worker, meanwhile.
type fault = run.Fault[*parent]

var faults = []fault{
	{Name: "pause", Run: pauseReplay},
	{Name: "cut", Run: cutReceiver},
	{Name: "kill", Run: killReplica},
	{Name: "freeze", Run: freezeReplica},
	{Name: "terminate", Run: terminateSessions},
	{Name: "lose-answers", Run: loseAnswers},
	{Name: "page", Run: forcePages},
	{Name: "promote", Run: promoteReplica},
	{Name: "crash", Run: crashPrimary},
	{Name: "freeze-primary", Run: freezePrimary},
	{Name: "kill-worker", Run: killWorker},
}

// startPostgres are those that start or promote a server. What becomes of one
// otherwise, the checker is not told.
var startPostgres = []string{"kill", "promote", "crash"}

// someReplica of those there are now.
func (p *parent) someReplica() *testbed.Node {
	replicas := p.cluster.Replicas()
	return replicas[p.random.IntN(len(replicas))]
}

// between waits for a time between two, longer than it takes to notice a fault
// and often longer than MaxLag.
func (p *parent) between(ctx context.Context, least, most time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(least + time.Duration(p.random.Int64N(int64(most-least)))):
		return nil
	}
}

// pauseReplay makes a replica, and with luck two of them, keep what they have.
func pauseReplay(ctx context.Context, p *parent) error {
	replicas := p.cluster.Replicas()
	p.random.Shuffle(len(replicas), func(i, j int) { replicas[i], replicas[j] = replicas[j], replicas[i] })
	replicas = replicas[:1+p.random.IntN(2)]
	for _, r := range replicas {
		if err := r.PauseReplay(ctx); err != nil {
			return err
		}
	}
	err := p.between(ctx, 300*time.Millisecond, 2*maxLag)
	for _, r := range replicas {
		err = errors.Join(err, r.ResumeReplay(ctx))
	}
	return err
}

func cutReceiver(ctx context.Context, p *parent) error {
	r := p.someReplica()
	if err := r.CutReceiver(ctx); err != nil {
		return err
	}
	return errors.Join(p.between(ctx, 300*time.Millisecond, 2*maxLag), r.RestoreReceiver(ctx))
}

// killReplica ends a replica as a crash does. When it comes back it has replayed
// less than it had shown before.
func killReplica(ctx context.Context, p *parent) error {
	r := p.someReplica()
	if err := r.StopImmediate(); err != nil {
		return err
	}
	return errors.Join(p.between(ctx, 10*time.Millisecond, time.Second), r.Start(ctx))
}

func freezeReplica(ctx context.Context, p *parent) error {
	r := p.someReplica()
	if err := r.Freeze(); err != nil {
		return err
	}
	return errors.Join(p.between(ctx, 200*time.Millisecond, 1500*time.Millisecond), r.Thaw())
}

// terminateSessions ends all sessions of a replica (57P01), a few times.
func terminateSessions(ctx context.Context, p *parent) error {
	r := p.someReplica()
	for range 3 {
		err := r.Exec(ctx, "", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
		if err := errors.Join(err, p.between(ctx, 20*time.Millisecond, 200*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// forcePages makes all workers pause but one, which commits at page ends.
func forcePages(ctx context.Context, p *parent) error {
	if err := p.askAll(ctx, command{Do: "pause"}); err != nil {
		return err
	}
	defer func() {
		for _, w := range p.workers {
			w.process.Tell(command{Do: "resume"})
		}
	}()
	// Otherwise a page may be first in its segment, or never.
	if err := p.cluster.Primary().Exec(ctx, "", "SELECT pg_switch_wal()"); err != nil {
		return err
	}
	if err := p.cluster.WaitCaughtUp(ctx); err != nil {
		return err
	}
	w := p.workers[1+p.random.IntN(len(p.workers)-1)]
	a, err := p.ask(ctx, w, command{Do: "page", Primary: p.cluster.Primary().DSN(""), Rounds: pageRounds})
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return err
}

const pageRounds = 5

// promoteReplica stops the primary as for maintenance, which sends all it has to
// the standbys, promotes one of them, and brings the old primary back as a
// standby. Nothing acknowledged may be lost then. (A crash of a primary that
// replicates asynchronously loses what it had not sent, whoever routes.)
func promoteReplica(ctx context.Context, p *parent) error {
	from := p.clock.Now()
	old, next := p.cluster.Primary(), p.someReplica()
	if err := old.StopFast(); err != nil {
		return err
	}
	if err := p.between(ctx, 10*time.Millisecond, 300*time.Millisecond); err != nil {
		return err
	}
	if err := p.succeed(ctx, from, old, next); err != nil {
		return err
	}
	return p.between(ctx, 100*time.Millisecond, time.Second)
}

// succeed promotes next in the place of old, which has stopped, and makes all the
// others its standbys.
func (p *parent) succeed(ctx context.Context, from int64, old, next *testbed.Node) error {
	if err := next.Promote(ctx); err != nil {
		return err
	}
	p.absences = append(p.absences, run.Span{From: from, To: p.clock.Now() + int64(noticed)})
	for _, r := range p.cluster.Replicas() {
		if r == old {
			continue
		}
		if err := r.Follow(ctx, next); err != nil {
			return err
		}
	}
	return old.RestartAsStandby(ctx, next)
}

// noticed is how long after a promotion a worker may still go by the old primary.
const noticed = 2 * time.Second

// schedule lets the faults happen until enough was done.
func (p *parent) schedule(ctx context.Context) error {
	s := run.Schedule[*parent]{
		Faults: p.settings.faults, Order: p.random.Perm, Failure: p.failure, Now: p.clock.Now,
		Pause:  func(ctx context.Context) error { return p.between(ctx, 200*time.Millisecond, 600*time.Millisecond) },
		Enough: func() bool { return p.readBacks() >= p.settings.ops },
	}
	return s.Run(ctx, p, p.happened)
}

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

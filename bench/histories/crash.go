package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

// crashPrimary ends the primary as a crash does, while one standby at least has
// every commit before its writer is told, and promotes the standby that has
// received most. Nothing acknowledged may be lost, and nothing that a standby has
// shown.
func crashPrimary(ctx context.Context, p *parent) error {
	old := p.cluster.Primary()
	if err := p.replicateBeforeCommit(ctx, old); err != nil {
		return err
	}
	if err := p.between(ctx, 200*time.Millisecond, time.Second); err != nil {
		return err
	}
	from := p.clock.Now()
	if err := old.StopImmediate(); err != nil {
		return err
	}
	next, err := p.farthest(ctx)
	if err != nil {
		return err
	}
	return p.succeed(ctx, from, old, next)
}

// replicateBeforeCommit makes commits wait for a standby, and returns when all
// that was acknowledged before is on all of them.
func (p *parent) replicateBeforeCommit(ctx context.Context, primary *testbed.Node) error {
	if err := primary.Set(ctx, "synchronous_standby_names", "ANY 1 (*)"); err != nil {
		return err
	}
	conn, err := primary.Conn(ctx, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for quorum := 0; quorum == 0; {
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'").Scan(&quorum); err != nil {
			return err
		}
		if err := p.between(ctx, 10*time.Millisecond, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for a synchronous standby: %w", err)
		}
	}
	return p.cluster.WaitCaughtUp(ctx)
}

// farthest is the replica that has received most.
func (p *parent) farthest(ctx context.Context) (far *testbed.Node, err error) {
	most := int64(-1)
	for _, r := range p.cluster.Replicas() {
		got, err := received(ctx, r)
		if err != nil {
			return nil, err
		}
		if got > most {
			far, most = r, got
		}
	}
	return far, nil
}

func received(ctx context.Context, r *testbed.Node) (position int64, err error) {
	conn, err := r.Conn(ctx, "")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = conn.QueryRow(ctx, "SELECT coalesce(pg_last_wal_receive_lsn() - '0/0', 0)::bigint").Scan(&position)
	return position, err
}

// freezePrimary stops the primary where it stands, and lets it go on.
func freezePrimary(ctx context.Context, p *parent) error {
	from := p.clock.Now()
	if err := p.cluster.Primary().Freeze(); err != nil {
		return err
	}
	err := errors.Join(p.between(ctx, 200*time.Millisecond, 1500*time.Millisecond), p.cluster.Primary().Thaw())
	p.absences = append(p.absences, run.Span{From: from, To: p.clock.Now() + int64(noticed)})
	return err
}

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// PauseReplay makes a replica keep the state it has. It goes on receiving WAL
// and serving reads, which see nothing newer from now on.
func (n *Node) PauseReplay(ctx context.Context) error {
	return n.with(ctx, "", func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT pg_wal_replay_pause()"); err != nil {
			return err
		}
		return untilTrue(ctx, conn, n.name+" to pause replay", "SELECT pg_get_wal_replay_pause_state() = 'paused'")
	})
}

// ResumeReplay continues replay; it does not wait for it to catch up.
func (n *Node) ResumeReplay(ctx context.Context) error {
	return n.Exec(ctx, "", "SELECT pg_wal_replay_resume()")
}

// CutReceiver cuts a replica off its upstream. It keeps serving reads of what
// it has, and its WAL receiver is gone when the call returns.
func (n *Node) CutReceiver(ctx context.Context) error {
	n.link.Cut()
	return n.with(ctx, "", func(conn *pgx.Conn) error {
		return untilTrue(ctx, conn, n.name+" to lose its WAL receiver", "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
	})
}

// RestoreReceiver ends [Node.CutReceiver] and waits until the replica streams
// again; it does not wait for it to catch up.
func (n *Node) RestoreReceiver(ctx context.Context) error {
	if err := n.link.Restore(); err != nil {
		return err
	}
	return n.waitStreaming(ctx)
}

// Upstream returns the proxy between a replica's WAL receiver and its
// upstream, for faults finer than a cut: a delay, a black hole.
func (n *Node) Upstream() *Proxy { return n.link }

// Promote makes a replica a primary and waits until it accepts writes. The old
// primary, if it runs, does not learn of it; other replicas go on following
// the old one until [Node.Follow]. From now on [Cluster.Primary] is n.
func (n *Node) Promote(ctx context.Context) error {
	err := n.with(ctx, "", func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT pg_promote(false)"); err != nil {
			return err
		}
		return untilTrue(ctx, conn, n.name+" to leave recovery", "SELECT NOT pg_is_in_recovery()")
	})
	if err == nil {
		n.cluster.primary.Store(n)
	}
	return err
}

// Follow points a running replica at another upstream, ends a cut of its
// receiver, and waits until it streams from there. The replica must not have replayed more than the upstream had
// when their timelines parted; where it may have, use [Node.RestartAsStandby].
func (n *Node) Follow(ctx context.Context, of *Node) error {
	return n.with(ctx, "", func(conn *pgx.Conn) error {
		// The view shows the old receiver for a moment after its connection
		// has ended, so wait for another one.
		var old int
		if err := conn.QueryRow(ctx, "SELECT coalesce((SELECT pid FROM pg_stat_wal_receiver), 0)").Scan(&old); err != nil {
			return err
		}
		if err := errors.Join(n.link.SetTarget(of.Addr()), n.link.Restore()); err != nil {
			return err
		}
		return untilTrue(ctx, conn, n.name+" to stream from "+of.name,
			"SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming' AND pid <> $1)", old)
	})
}

// RestartAsStandby throws a node's data away and starts it as a replica of
// another node from a new base backup, whatever it was before. It waits until
// the node streams.
func (n *Node) RestartAsStandby(ctx context.Context, of *Node) error {
	if n == of {
		return fmt.Errorf("testbed: restart %s as standby: a node cannot follow itself", n.name)
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	if err := n.StopImmediate(); err != nil {
		return err
	}
	if err := os.RemoveAll(n.data); err != nil {
		return fmt.Errorf("testbed: restart %s as standby: %w", n.name, err)
	}
	c := n.cluster
	err := c.run(ctx, c.bin.path("pg_basebackup"), "-h", "127.0.0.1", "-p", strconv.Itoa(of.port), "-U", "postgres",
		"-D", n.data, "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
	if err != nil {
		return err
	}
	if err := errors.Join(n.writeConfig(), n.writeFile("standby.signal", ""), n.link.SetTarget(of.Addr()), n.link.Restore()); err != nil {
		return err
	}
	if err := n.Start(ctx); err != nil {
		return err
	}
	return n.waitStreaming(ctx)
}

// IsInRecovery asks the node whether it is a replica.
func (n *Node) IsInRecovery(ctx context.Context) (recovering bool, err error) {
	err = n.with(ctx, "", func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering)
	})
	return recovering, err
}

// LSN returns the end of the WAL that the node has written, on a replica the
// end of what it has replayed, as "16/B374D848".
func (n *Node) LSN(ctx context.Context) (lsn string, err error) {
	err = n.with(ctx, "", func(conn *pgx.Conn) error {
		// The flushed end, not the inserted one: at the border of a page the
		// latter stands behind the next page's header, where no record ends
		// and no replica arrives until more is written.
		return conn.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
			ELSE pg_current_wal_flush_lsn() END::text`).Scan(&lsn)
	})
	return lsn, err
}

// WaitReplayed waits until a replica has replayed up to lsn.
func (n *Node) WaitReplayed(ctx context.Context, lsn string) error {
	return n.with(ctx, "", func(conn *pgx.Conn) error {
		return untilTrue(ctx, conn, n.name+" to replay "+lsn, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn)
	})
}

func (n *Node) waitStreaming(ctx context.Context) error {
	return n.with(ctx, "", func(conn *pgx.Conn) error {
		return untilTrue(ctx, conn, n.name+" to stream",
			"SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')")
	})
}

// untilTrue polls a statement that returns one boolean.
func untilTrue(ctx context.Context, conn *pgx.Conn, what, sql string, args ...any) error {
	return until(ctx, what, func(ctx context.Context) (ok bool, err error) {
		err = conn.QueryRow(ctx, sql, args...).Scan(&ok)
		if err != nil && conn.IsClosed() {
			err = fatalError{err}
		}
		return ok, err
	})
}

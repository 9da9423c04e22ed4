package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lostAnswers is how many connections at least a fault of that kind ends.
const lostAnswers = 8

// loseAnswers ends connections of the primary whose commits are done and wait for a
// standby that never comes: those who wait for the answer cannot know. Whoever sends
// such a write again makes it twice, and whoever takes the error for a refusal is
// wrong.
func loseAnswers(ctx context.Context, p *parent) (err error) {
	primary := p.cluster.Primary()
	conn, err := primary.Conn(ctx, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var before string
	if err := conn.QueryRow(ctx, "SHOW synchronous_standby_names").Scan(&before); err != nil {
		return err
	}
	if err := primary.Set(ctx, "synchronous_standby_names", "nobody"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, primary.Set(ctx, "synchronous_standby_names", before)) }()
	for ended := 0; ended < lostAnswers; {
		if err := p.between(ctx, 10*time.Millisecond, 30*time.Millisecond); err != nil {
			return fmt.Errorf("wait for commits that wait for a standby: %w", err)
		}
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n); err != nil {
			return err
		}
		ended += n
	}
	return nil
}

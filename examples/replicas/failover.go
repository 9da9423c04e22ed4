package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// enough is how many writes are acknowledged before the primary stops, and again
// after a standby was promoted.
const enough = 200

// ack is one acknowledged write.
type ack struct {
	value int64
	at    time.Time
}

// failover stops the primary as for maintenance and promotes a standby while one
// instance writes all the time. The program is not told of it.
func (s *scenario) failover() error {
	ctx, stop := context.WithTimeout(s.ctx, 30*time.Second)
	defer stop()
	acks := make(chan ack)
	writers, end := context.WithCancel(ctx)
	done := make(chan struct{})
	refusals := 0
	go func() {
		defer close(done)
		for n := int64(1); writers.Err() == nil; n++ {
			if s.a.db.WithContext(ctx).Create(&Account{ID: uint(1000 + n), Balance: n}).Error != nil {
				refusals++ // a program would report it, or try again
				continue
			}
			select {
			case acks <- ack{n, time.Now()}:
			case <-writers.Done():
			}
		}
	}()
	defer func() { end(); <-done }()
	written := make(map[int64]bool)
	last, err := collect(ctx, acks, written)
	if err != nil {
		return err
	}
	old, next := s.cluster.Primary(), s.cluster.Replica(1)
	moved := make(chan error, 1)
	go func() {
		if err := old.StopFast(); err != nil { // it sends its standbys what it has
			moved <- err
			return
		}
		moved <- next.Promote(ctx)
	}()
	gap, err := across(ctx, acks, written, last, moved)
	if err != nil {
		return err
	}
	_, err = collect(ctx, acks, written)
	end()
	<-done
	if err != nil {
		return err
	}
	fmt.Printf("   %s stopped, %s promoted; %s is the primary now\n", old.Name(), next.Name(), s.primaryName())
	fmt.Printf("   longest time without an acknowledged write: %v, %d writes failed\n", gap.Round(time.Millisecond), refusals)
	return s.nothingLost(ctx, written)
}

// collect takes in enough acknowledgements, and returns when the last one came.
func collect(ctx context.Context, acks <-chan ack, written map[int64]bool) (last time.Time, err error) {
	for range enough {
		select {
		case a := <-acks:
			written[a.value] = true
			last = a.at
		case <-ctx.Done():
			return last, errors.New("the writes do not go on")
		}
	}
	return last, nil
}

// across takes in acknowledgements until one came after the promotion, and returns
// the longest time between two.
func across(ctx context.Context, acks <-chan ack, written map[int64]bool, last time.Time, moved <-chan error) (longest time.Duration, err error) {
	for promoted := false; ; {
		select {
		case err := <-moved:
			if err != nil {
				return longest, err
			}
			promoted = true
		case a := <-acks:
			written[a.value] = true
			longest = max(longest, a.at.Sub(last))
			last = a.at
			if promoted {
				return longest, nil
			}
		case <-ctx.Done():
			return longest, errors.New("no write came through after the promotion")
		}
	}
}

func (s *scenario) primaryName() string {
	for _, n := range s.a.plugin.Resolver().Nodes() {
		if n.Primary {
			return n.Name
		}
	}
	return "nobody"
}

// nothingLost asks the new primary itself for what was acknowledged.
func (s *scenario) nothingLost(ctx context.Context, written map[int64]bool) error {
	conn, err := s.cluster.Primary().Conn(ctx, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT balance FROM accounts WHERE id > 1000")
	if err != nil {
		return err
	}
	acknowledged := len(written)
	for rows.Next() {
		var value int64
		if err := rows.Scan(&value); err != nil {
			return err
		}
		delete(written, value)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(written) > 0 {
		return fmt.Errorf("%d of %d acknowledged writes are lost", len(written), acknowledged)
	}
	fmt.Printf("   %d writes were acknowledged, and all are there\n", acknowledged)
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
)

const (
	instances = 3
	callers   = 8 // of each instance
	users     = 4
	perUser   = 50
	global    = 150
	window    = time.Second
	timeout   = 50 * time.Millisecond // limithook's default
	// leeway is what a query may take beyond the timeout and the lateness of this
	// machine's timers: the decision itself.
	leeway = 5 * time.Millisecond
	// patience is how long a recovery may take, a fail-over by the sentinels included.
	patience = 10 * time.Second
)

// fault is what happens to the servers in the middle.
type fault struct {
	name string
	// windows is how many limits the fullest window may hold: what Redis counted,
	// what the instances counted without it, and what was lost or came back empty
	// within one window.
	windows int
	begin   func(context.Context) error
	end     func(context.Context) error // nil: it ends by itself
}

// limits runs all faults, one after the other, on servers of their own.
func limits(ctx context.Context, mode limithook.Mode, outage time.Duration) (broken bool, err error) {
	single, err := testbed.StartRedis(ctx, testbed.RedisConfig{})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, single.Close()) }()
	group, err := testbed.StartRedisSentinel(ctx, testbed.RedisSentinelConfig{})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, group.Close()) }()

	alone := func() redis.UniversalClient { return redis.NewClient(&redis.Options{Addr: single.Addr()}) }
	sentinel := func() redis.UniversalClient {
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: testbed.SentinelMaster, SentinelAddrs: group.Addrs()})
	}
	away := func(do func() error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := do(); err != nil {
				return err
			}
			select {
			case <-time.After(outage):
			case <-ctx.Done():
			}
			return nil
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\tqueries\tadmitted\twithout Redis\tlongest wait\tbound\tfullest window\tbound\trecovered after\t")
	for _, c := range []struct {
		connect func() redis.UniversalClient
		fault   fault
	}{
		{alone, fault{"none", 1, away(func() error { return nil }), nil}},
		{alone, fault{"hung", 2, away(single.Freeze), func(context.Context) error { return single.Thaw() }}},
		{alone, fault{"killed, back empty", 2, away(single.Kill), single.Start}},
		{alone, fault{"connections cut", 2, func(ctx context.Context) error { _, err := single.ClientKill(ctx); return err }, nil}},
		{sentinel, fault{"failed over by hand", 3, group.Failover, nil}},
		{sentinel, fault{"master killed", 3, func(ctx context.Context) error {
			master, err := group.Master(ctx)
			if err != nil {
				return err
			}
			if err := master.Kill(); err != nil {
				return err
			}
			return group.WaitFailover(ctx, master)
		}, nil}},
	} {
		r, err := soak(ctx, c.connect, mode, c.fault)
		if err != nil {
			return broken, fmt.Errorf("%s: %w", c.fault.name, err)
		}
		broken = r.print(w, c.fault, mode) || broken
		if ctx.Err() != nil {
			return broken, ctx.Err()
		}
	}
	return broken, w.Flush()
}

// soak loads the limiters of several instances before, during and after a fault.
func soak(ctx context.Context, connect func() redis.UniversalClient, mode limithook.Mode, f fault) (r *record, err error) {
	r = &record{users: make([][]span, users)}
	var limiters []*limithook.Limiter
	for range instances {
		c := connect()
		defer func() { err = errors.Join(err, c.Close()) }()
		l, err := limithook.NewLimiter(limithook.Config{
			PerUser: limithook.Per(perUser, window), Global: limithook.Per(global, window), Redis: c, Name: "soak:" + digits(),
			Instances: instances, OnRedisFailure: mode, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		limiters = append(limiters, l)
	}
	load, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, l := range limiters {
		for g := range callers {
			wg.Go(func() { r.ask(load, l, g%users) })
			wg.Go(func() { r.watchTimers(load) })
		}
	}

	pause(ctx, 2*window)
	r.watch.Store(true)
	err = f.begin(ctx)
	if err == nil && f.end != nil {
		err = f.end(ctx)
	}
	ended := time.Now()
	for err == nil && !answers(load, limiters) {
		if time.Since(ended) > patience {
			err = fmt.Errorf("not in use again %v after the fault", patience)
		}
		pause(ctx, 5*time.Millisecond)
	}
	r.recovered = time.Since(ended)
	pause(ctx, 2*window)
	stop()
	wg.Wait()
	return r, err
}

// answers reports whether all instances go by Redis.
func answers(ctx context.Context, limiters []*limithook.Limiter) bool {
	for _, l := range limiters {
		if d, err := l.Info(ctx, "nobody"); err != nil || d.Degraded || l.Stats().Down {
			return false
		}
	}
	return true
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

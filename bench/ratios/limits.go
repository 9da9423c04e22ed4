package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
)

// limits is the time of one decision, in each of the ways in which it is made.
func limits(ctx context.Context) (rows []row, err error) {
	server, err := testbed.StartRedis(ctx, testbed.RedisConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()

	user := limithook.WithUser(ctx, "ann")
	config := limithook.Config{
		PerUser: limithook.PerMinute(1 << 30), Global: limithook.PerMinute(1 << 30), Redis: rdb, Logger: slog.New(slog.DiscardHandler),
	}
	local := config
	local.Redis = nil
	// The exact log keeps one instant an admission, so what is measured with
	// many admissions has a short window.
	local.PerUser, local.Global = limithook.Per(1<<30, 10*time.Millisecond), limithook.Per(1<<30, 10*time.Millisecond)
	leased := config
	leased.Name, leased.Lease.Max = "leased", 1024
	each := config
	each.Name, each.Lease.Max = "each", 1
	each.PerUser, each.Global = limithook.Per(1<<30, 100*time.Millisecond), limithook.Per(1<<30, 100*time.Millisecond)
	spent := config
	spent.Name, spent.PerUser = "spent", limithook.Per(1, time.Hour)

	decide := func(cfg limithook.Config) (func(int), *limithook.Limiter, error) {
		l, err := limithook.NewLimiter(cfg)
		if err != nil {
			return nil, nil, err
		}
		return func(n int) {
			for range n {
				_, err := l.Decide(user, 1)
				must(err)
			}
		}, l, nil
	}
	for _, c := range []struct {
		name string
		cfg  limithook.Config
		goal float64
	}{
		{"decision in memory", local, 60},
		{"decision through leases of up to 1024", leased, 60},
		{"refusal remembered", spent, 50},
	} {
		f, l, err := decide(c.cfg)
		if err != nil {
			return nil, err
		}
		rows = append(rows, atMostNanos(c.name, measure(f, empty), c.goal))
		if err := l.Close(); err != nil {
			return nil, err
		}
	}

	round, l, err := decide(each)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	script := redis.NewScript(`return redis.call('TIME')`)
	eval := func(n int) {
		for range n {
			must(script.Run(ctx, rdb, []string{"ratios:{x}"}).Err())
		}
	}
	peer := redis_rate.NewLimiter(rdb)
	gcra := func(n int) {
		for range n {
			// Two limits are two round trips there.
			_, err := peer.Allow(ctx, "ann", redis_rate.PerMinute(1<<30))
			must(err)
			_, err = peer.Allow(ctx, "all", redis_rate.PerMinute(1<<30))
			must(err)
		}
	}
	return append(rows,
		atMostAbove("decision through Redis, user and global", "a bare EVALSHA of TIME", measure(round, eval), 13_000),
		atMost("decision through Redis, user and global", "redis_rate, two limits", measure(round, gcra), 1),
	), nil
}

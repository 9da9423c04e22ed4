package main

import (
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
)

// away is the longest wait of a decision while Redis hangs, of many callers at a
// time; the soak in bench/soak does more of this for longer.
func (m *limiters) away() (rows []row, err error) {
	server, err := testbed.StartRedis(m.ctx, testbed.RedisConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()
	var longest []float64
	for round := range 5 {
		l, err := limithook.NewLimiter(limithook.Config{
			PerUser: limithook.PerMinute(1 << 20), Redis: rdb, Name: strconv.Itoa(round), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nil, err
		}
		if err := l.Allow(limithook.WithUser(m.ctx, "first")); err != nil {
			return nil, err
		}
		if err := server.Freeze(); err != nil {
			return nil, err
		}
		var mu sync.Mutex
		var most time.Duration
		var wg sync.WaitGroup
		for g := range 32 {
			wg.Go(func() {
				ctx := limithook.WithUser(m.ctx, strconv.Itoa(g))
				for range 20 {
					begun := time.Now()
					_, err := l.Decide(ctx, 1)
					took := time.Since(begun)
					must(err)
					mu.Lock()
					most = max(most, took)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if err := errors.Join(server.Thaw(), l.Close()); err != nil {
			return nil, err
		}
		longest = append(longest, float64(most)/float64(time.Millisecond))
	}
	return []row{counted("longest wait of a decision while Redis hangs", "-", "ms", medianOf(longest), 50, false)}, nil
}

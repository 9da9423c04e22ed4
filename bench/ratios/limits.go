package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/httprate"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	redisstore "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
)

// limits is the time of one decision, in each of the ways in which it is made, and
// what is admitted in the fullest window.
func limits(ctx context.Context) (rows []row, err error) {
	server, err := testbed.StartRedis(ctx, testbed.RedisConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()

	m := &limiters{ctx: ctx, rdb: rdb, user: limithook.WithUser(ctx, "ann")}
	for _, f := range []func() ([]row, error){m.here, m.besides, m.overRedis, m.ofARequest, m.fullestVirtual, m.fullestReal, m.away} {
		rs, err := f()
		if err != nil {
			return nil, err
		}
		rows = append(rows, rs...)
	}
	return rows, nil
}

type limiters struct {
	ctx, user context.Context
	rdb       *redis.Client
	names     int
}

// config limits nobody in practice, and keeps few admissions: an exact log has one
// instant for each.
func (m *limiters) config(window time.Duration) limithook.Config {
	m.names++
	return limithook.Config{
		PerUser: limithook.Per(1<<30, window), Global: limithook.Per(1<<30, window), Redis: m.rdb,
		Name: "ratios" + strconv.Itoa(m.names), Logger: slog.New(slog.DiscardHandler),
	}
}

// decide is a decision with a limiter of its own.
func (m *limiters) decide(cfg limithook.Config) (f func(int), done func() error, err error) {
	l, err := limithook.NewLimiter(cfg)
	if err != nil {
		return nil, nil, err
	}
	return func(n int) {
		for range n {
			_, err := l.Decide(m.user, 1)
			must(err)
		}
	}, l.Close, nil
}

// here are the decisions that ask nobody.
func (m *limiters) here() (rows []row, err error) {
	local := m.config(10 * time.Millisecond)
	local.Redis = nil
	leased := m.config(time.Minute)
	leased.Lease.Max = 1 << 16
	spent := m.config(time.Minute)
	spent.PerUser = limithook.Per(1, time.Hour)
	for _, c := range []struct {
		name string
		cfg  limithook.Config
		goal float64
	}{
		{"decision in memory", local, 60},
		{"decision through leases of up to 65,536", leased, 60},
		{"refusal remembered", spent, 50},
	} {
		f, done, err := m.decide(c.cfg)
		if err != nil {
			return nil, err
		}
		rows = append(rows, atMostNanos(c.name, measure(f, empty), c.goal))
		if err := done(); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// header is a ResponseWriter that keeps nothing but the header.
type header struct {
	http.ResponseWriter
	h http.Header
}

func (h header) Header() http.Header { return h.h }

// besides compares a decision in memory with those of peers, user and global each.
// httprate's writes the headers too, so ours does there.
func (m *limiters) besides() ([]row, error) {
	cfg := m.config(10 * time.Millisecond)
	cfg.Redis = nil
	l, err := limithook.NewLimiter(cfg)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	ours := func(n int) {
		for range n {
			_, err := l.Decide(m.user, 1)
			must(err)
		}
	}
	w := header{h: http.Header{}}
	withHeaders := func(n int) {
		for range n {
			d, err := l.Decide(m.user, 1)
			must(err)
			limithook.SetHeaders(w.h, d)
		}
	}
	r, err := http.NewRequestWithContext(m.ctx, http.MethodGet, "/", nil)
	if err != nil {
		return nil, err
	}
	user, all := httprate.NewRateLimiter(1<<30, time.Minute), httprate.NewRateLimiter(1<<30, time.Minute)
	chi := func(n int) {
		for range n {
			if user.OnLimit(w, r, "ann") || all.OnLimit(w, r, "all") {
				panic("refused")
			}
		}
	}
	rate := limiter.Rate{Limit: 1 << 30, Period: time.Minute}
	store := memory.NewStore()
	fixed := func(n int) {
		for range n {
			_, err := store.Get(m.ctx, "ann", rate)
			must(err)
			_, err = store.Get(m.ctx, "all", rate)
			must(err)
		}
	}
	return []row{
		atMost("decision in memory, with headers", "chi httprate, two limits", measure(withHeaders, chi), 1),
		atMost("decision in memory", "ulule/limiter, two limits", measure(ours, fixed), 1),
	}, nil
}

// overRedis compares a decision of one round trip, without leases.
func (m *limiters) overRedis() ([]row, error) {
	each := m.config(100 * time.Millisecond)
	each.Lease.Max = 1
	round, done, err := m.decide(each)
	if err != nil {
		return nil, err
	}
	script := redis.NewScript(`return redis.call('TIME')`)
	eval := func(n int) {
		for range n {
			must(script.Run(m.ctx, m.rdb, []string{"ratios:{x}"}).Err())
		}
	}
	peer := redis_rate.NewLimiter(m.rdb)
	gcra := func(n int) {
		for range n {
			// Two limits are two round trips there.
			_, err := peer.Allow(m.ctx, "ann", redis_rate.PerMinute(1<<30))
			must(err)
			_, err = peer.Allow(m.ctx, "all", redis_rate.PerMinute(1<<30))
			must(err)
		}
	}
	store, err := redisstore.NewStore(m.rdb)
	if err != nil {
		return nil, err
	}
	rate := limiter.Rate{Limit: 1 << 30, Period: time.Minute}
	fixed := func(n int) {
		for range n {
			_, err := store.Get(m.ctx, "ann", rate)
			must(err)
			_, err = store.Get(m.ctx, "all", rate)
			must(err)
		}
	}
	bare := measure(round, eval)
	server, err := m.serverTime(round, 3000)
	if err != nil {
		return nil, err
	}
	trivial, err := m.serverTime(eval, 3000)
	if err != nil {
		return nil, err
	}
	client := pair{oursAllocs: bare.oursAllocs, peerAllocs: bare.peerAllocs}
	for i := range bare.ours {
		client.ours = append(client.ours, bare.ours[i]-server)
		client.peer = append(client.peer, bare.peer[i]-trivial)
	}
	micro := server / 1000
	return []row{
		atMostAbove("decision through Redis, user and global", "a bare EVALSHA of TIME", bare, 13_000),
		atMostAbove("its part outside of Redis' own time", "that of a bare EVALSHA", client, 5_000),
		counted("its time in Redis", "-", "µs", interval{micro, micro, micro}, 8, false),
		atMost("decision through Redis, user and global", "redis_rate, two limits", measure(round, gcra), 1),
		atMost("decision through Redis, user and global", "ulule/limiter, two limits", measure(round, fixed), 1),
	}, done()
}

// serverTime is what Redis itself spends in one of n EVALSHA, in nanoseconds.
func (m *limiters) serverTime(f func(int), n int) (float64, error) {
	if err := m.rdb.ConfigResetStat(m.ctx).Err(); err != nil {
		return 0, err
	}
	f(n)
	info, err := m.rdb.Info(m.ctx, "commandstats").Result()
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(info, "cmdstat_evalsha:")
	_, line, _ = strings.Cut(line, "usec_per_call=")
	line, _, _ = strings.Cut(line, ",")
	us, err := strconv.ParseFloat(line, 64)
	return us * 1000, err
}

// ofARequest is how often a page of twelve statements asks Redis, with leases as
// they are by default, users who come once a second, and limits of common sizes.
func (m *limiters) ofARequest() ([]row, error) {
	cfg := m.config(time.Minute)
	cfg.PerUser, cfg.Global = limithook.PerMinute(1000), limithook.PerMinute(100_000)
	l, err := limithook.NewLimiter(cfg)
	if err != nil {
		return nil, err
	}
	var calls []float64
	for page := range 50 {
		user := limithook.WithUser(m.ctx, strconv.Itoa(page))
		before := l.Stats().RedisCalls
		for range 12 {
			if err := l.Allow(user); err != nil {
				return nil, fmt.Errorf("page %d: %w", page, err)
			}
		}
		calls = append(calls, float64(l.Stats().RedisCalls-before))
	}
	return []row{counted("Redis asked in a user's first page of 12 statements", "12 of redis_rate", "times", medianOf(calls), 4, false)}, l.Close()
}

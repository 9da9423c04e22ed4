package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"

	"github.com/gorminfra/infra/limithook"
)

// fullestLimit is the limit of which the fullest window is sought.
const fullestLimit = 100

// fullest returns the largest number of instants in any window of this length.
func fullest(at []time.Duration, window time.Duration) (most int) {
	first := 0
	for i, t := range at {
		for t-at[first] >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// hammer asks once, waits until just before the border that a fixed window which
// began there has, and then asks for as long as four windows, a hundred times as
// often as the limit admits. It returns when it was admitted.
func hammer(window time.Duration, allow func() bool) (at []time.Duration) {
	start := time.Now()
	for i := range 4 * 100 * fullestLimit / 10 {
		now := time.Since(start)
		if allow() {
			at = append(at, now)
		}
		if i == 0 {
			time.Sleep(window - window/100) //nolint:forbidigo // arrivals in time are the subject
		}
		if i%10 == 0 {
			time.Sleep(window / 1000) //nolint:forbidigo // so are these
		}
	}
	return at
}

// fullestVirtual lets limiters in memory count for four minutes of virtual time,
// which only a test has: it runs TestFullestWindowInVirtualTime.
func (m *limiters) fullestVirtual() ([]row, error) {
	out, err := exec.CommandContext(m.ctx, "go", "test", "-count=1", "-v", "-run", "^TestFullestWindowInVirtualTime$",
		"github.com/gorminfra/infra/bench/ratios").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("virtual time: %w\n%s", err, out)
	}
	var ours, chi, fixed int
	_, told, ok := strings.Cut(string(out), fullestMark)
	if _, err := fmt.Sscan(told, &ours, &chi, &fixed); err != nil || !ok {
		return nil, fmt.Errorf("virtual time: %w: %s", err, out)
	}
	name := fmt.Sprintf("most in any 60 s, limit %d, in memory (virtual time)", fullestLimit)
	return []row{
		admitted(name, fmt.Sprintf("chi httprate: %d", chi), ours),
		admitted(name, fmt.Sprintf("ulule/limiter: %d", fixed), ours),
	}, nil
}

// fullestMark is what the test's three numbers follow.
const fullestMark = "fullest windows:"

// fullestReal does the same over Redis, whose clock is nobody's to set, with a
// window of a second.
func (m *limiters) fullestReal() ([]row, error) {
	const window = time.Second
	cfg := m.config(window)
	cfg.PerUser = limithook.Per(fullestLimit, window)
	var instances []*limithook.Limiter
	for range 2 {
		l, err := limithook.NewLimiter(cfg)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		instances = append(instances, l)
	}
	var n atomic.Int64
	ours := fullest(hammer(window, func() bool {
		return instances[n.Add(1)%2].Allow(m.user) == nil
	}), window-time.Millisecond) // what it took to ask
	peer := redis_rate.NewLimiter(m.rdb)
	gcra := fullest(hammer(window, func() bool {
		r, err := peer.Allow(context.WithoutCancel(m.ctx), "fullest"+strconv.Itoa(m.names), redis_rate.PerSecond(fullestLimit))
		must(err)
		return r.Allowed > 0
	}), window-time.Millisecond)
	name := fmt.Sprintf("most in any 1 s, limit %d, two instances over Redis", fullestLimit)
	return []row{admitted(name, fmt.Sprintf("redis_rate: %d", gcra), ours)}, nil
}

func admitted(name, than string, n int) row {
	v := float64(n)
	return counted(name, than, "admitted", interval{v, v, v}, fullestLimit, false)
}

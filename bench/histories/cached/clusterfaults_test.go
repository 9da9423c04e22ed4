package cached

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gorminfra/infra/bench/histories/clock"
	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

// After each fault every shard has a master and a replica, no key that a master held
// is lost but by its end, and of another master the checker is told.
func TestFaultsOfAClusterAreUndoneAndSeen(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p := &parent{settings: Settings{Redis: Cluster}, h: &history{}, random: rand.New(rand.NewPCG(1, 2)), happened: run.Happened{}}
	if err := forms[Cluster].start(ctx, p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.redis.Close(); err != nil {
			t.Error(err)
		}
	})
	var err error
	if p.clock, err = clock.New(); err != nil {
		t.Fatal(err)
	}
	if err := p.settleShards(ctx); err != nil {
		t.Fatal(err)
	}
	mastersNow := func() (names []string) {
		for _, pair := range p.redis.pairs() {
			master, err := pair.master(ctx)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, master.Name())
		}
		return names
	}
	// owner sends what is about a key to who has it.
	owner := func(key string, args ...any) (name string, reply any) {
		t.Helper()
		for _, r := range p.redis.Nodes() {
			if replication(ctx, r)["role"] != "master" {
				continue
			}
			if reply, err := r.Do(ctx, args...); err == nil {
				return r.Name(), reply
			}
		}
		t.Fatalf("nobody has %s", key)
		return "", nil
	}
	keys := []string{channelKey}
	for i := range 50 {
		keys = append(keys, fmt.Sprintf("infra:%s:cache:e:%d", cacheName, i))
	}
	for _, key := range keys {
		owner(key, "SET", key, "value of "+key)
	}
	happen := func(name string, f func(context.Context, *parent) error) (changes []run.Change) {
		t.Helper()
		watch := watchMasters(p.redis, p.clock.Now)
		defer watch.end()
		for _, pair := range p.redis.pairs() { // it has seen them
			master, err := pair.master(ctx)
			for err != nil || !pair.stands(ctx, master) {
				wait(ctx, t)
				master, err = pair.master(ctx)
			}
		}
		for range 3 {
			wait(ctx, t)
		}
		if err := f(ctx, p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.settleShards(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 3 {
			wait(ctx, t)
		}
		return watch.end()
	}

	before, _ := owner(channelKey, "GET", channelKey)
	if changes := happen("reshard", reshard); len(changes) > 0 {
		t.Errorf("moved slots are told as %v", changes)
	}
	if after, _ := owner(channelKey, "GET", channelKey); after == before {
		t.Error("the channel's slot has not moved")
	}
	for _, key := range keys {
		if _, value := owner(key, "GET", key); value != "value of "+key {
			t.Errorf("after its slot moved %s is %v", key, value)
		}
	}

	old := mastersNow()
	changes := happen("hand-over", handOver)
	if now := mastersNow(); len(changes) != 1 || !slices.Contains(old, changes[0].Was) || !slices.Contains(now, changes[0].Is) || slices.Equal(old, now) {
		t.Errorf("masters were %v and are %v: told as %v", old, now, changes)
	}
	for _, key := range keys {
		if _, value := owner(key, "GET", key); value != "value of "+key {
			t.Errorf("after the hand-over %s is %v", key, value)
		}
	}

	// Until its replica was promoted once, and it came back in time once.
	for promoted, back := false, false; !promoted || !back; {
		old := mastersNow()
		changes := happen("kill-shard", killShard)
		now := mastersNow()
		if slices.Equal(old, now) != (len(changes) == 0) {
			t.Errorf("masters were %v and are %v: told as %v", old, now, changes)
		}
		promoted, back = promoted || len(changes) > 0, back || len(changes) == 0
	}

	if happen("restore-shard", restoreShard); len(p.h.restored) != 1 {
		t.Errorf("after a restored snapshot the checker is told of %v", p.h.restored)
	}
}

// Two that agree lose nothing, so nothing is excused.
func TestAgreedFailoverIsJudged(t *testing.T) {
	t.Parallel()
	happened := run.Happened{"hand-over": {{From: 100, To: 200}}, "kill-shard": {{From: 300, To: 400}}}
	h := &history{}
	change := func(from int64) run.Change { return run.Change{Span: run.Span{From: from, To: from + 10}} }
	h.judge(forms[Cluster], []run.Change{change(120), change(320), change(500)}, nil, nil, happened)
	if h.failovers != 3 || h.unasked != 1 || len(h.restored) != 2 || h.restored[0].From != 320 || h.restored[1].From != 500 {
		t.Errorf("%d failovers, %d by no fault, not judged %v", h.failovers, h.unasked, h.restored)
	}
}

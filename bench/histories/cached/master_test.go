package cached

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

// The sentinel takes a master that stands still for dead, by its own judgement and
// by no fault of the run.
func TestFailoverThatNobodyAskedForIsToldToTheChecker(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	servers, err := testbed.StartRedisSentinel(ctx, testbed.RedisSentinelConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := servers.Close(); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	now := func() int64 { return int64(time.Since(began)) }
	redis := bySentinel{servers}
	m := watchMasters(redis, now)
	defer m.end()
	starts := run.StartWatch(lookEvery, now, redisServers(redis)...)
	defer starts.Stop()
	old, err := servers.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Once the two are in step, as the watch sees it too.
	for !redis.pairs()[0].stands(ctx, old) {
		wait(ctx, t)
	}
	wait(ctx, t)
	frozen := now()
	if err := old.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := servers.WaitFailover(ctx, old); err != nil {
		t.Fatal(err)
	}
	named := now()
	if err := old.Thaw(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(4 * lookEvery); time.Now().Before(end); {
		wait(ctx, t)
	}
	changes := m.end()
	if len(changes) != 1 || changes[0].Was != old.Name() || changes[0].Is == old.Name() {
		t.Fatalf("noted %v, want one failover", changes)
	}
	// What the old one was told after the last look that found both in step may be
	// lost, and nothing before.
	if c := changes[0]; c.From > frozen || c.From < frozen-int64(30*time.Second) || c.To < frozen {
		t.Errorf("noted it between %d and %d: it was frozen at %d, and the other was named by %d", c.From, c.To, frozen, named)
	}
	h := &history{}
	h.judge(forms[Sentinel], changes, starts.Stop(), nil, nil)
	if h.failovers != 1 || h.unasked != 1 || len(h.noProof) > 0 {
		t.Errorf("%d failovers, %d by no fault, does not count: %q, want one of both and a run that counts", h.failovers, h.unasked, h.noProof)
	}
	answered := op{From: fromL2, Start: frozen, End: frozen + 1}
	if !h.exempt(&answered) {
		t.Errorf("what was answered as it was frozen is judged: %v", h.restored)
	}
	answered.Start = changes[0].To + int64(lease+recovers) + 1
	answered.End = answered.Start
	if h.exempt(&answered) {
		t.Errorf("what was answered long after it is not judged: %v", h.restored)
	}
}

func wait(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	case <-time.After(lookEvery):
	}
}

func TestServersThatChangeOfThemselvesMakeARunShowNothing(t *testing.T) {
	t.Parallel()
	happened := run.Happened{"failover": {{From: 100, To: 200}}, "freeze-redis": {{From: 300, To: 400}}, "pause": {{From: 500, To: 600}}}
	change := func(from int64) []run.Change {
		return []run.Change{{Name: "it", Was: "one", Is: "another", Span: run.Span{From: from, To: from + 10}}}
	}
	for _, tc := range []struct {
		name                     string
		masters, redis, postgres []run.Change
		unasked                  int
		noProof                  bool
	}{
		{"nothing", nil, nil, nil, 0, false},
		{"a failover by a fault", change(120), nil, nil, 0, false},
		{"a failover as a master stands still", change(320), nil, nil, 0, false},
		{"a failover by itself", change(220), nil, nil, 1, false},
		{"a start by a fault", nil, change(120), nil, 0, false},
		{"a start as a master stands still", nil, change(320), nil, 0, true},
		{"a start by itself", nil, change(220), nil, 0, true},
		{"a promotion of a Postgres", nil, nil, change(120), 0, true},
		{"a promotion of a Postgres that stands still", nil, nil, change(520), 0, true},
	} {
		h := &history{}
		h.judge(forms[Sentinel], tc.masters, tc.redis, tc.postgres, happened)
		if h.failovers != len(tc.masters) || h.unasked != tc.unasked || len(h.restored) != len(tc.masters) {
			t.Errorf("%s: %d failovers, %d by no fault, not judged %v", tc.name, h.failovers, h.unasked, h.restored)
		}
		// The summary tells it, or nobody does.
		h.instances = map[uint8]instance{}
		noProof := strings.Join(summarize(Settings{}, h, happened, nil).NoProof, "; ")
		if strings.Contains(noProof, `it was "one" and became "another"`) != tc.noProof {
			t.Errorf("%s: does not count: %q", tc.name, noProof)
		}
	}
}

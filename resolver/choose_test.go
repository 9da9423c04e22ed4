package resolver

import (
	"math"
	"testing"
	"time"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"
)

// members makes a rotation of nodes that are fit until time 100 and fresh as of
// time 90.
func members(weights ...int) *rotation {
	r := &rotation{}
	for i, w := range weights {
		m := &member{index: i, name: string(rune('a' + i)), weight: w, pool: &gorm.PreparedStmtDB{}}
		m.valid.Store(100)
		m.fresh.Store(90)
		m.replayed.Store(1000)
		r.list = append(r.list, Candidate{m})
	}
	return r
}

func shares(t *testing.T, r *rotation, p Policy, d *demand) []float64 {
	t.Helper()
	const n = 60_000
	got := make([]float64, len(r.list))
	for range n {
		m, f := r.pick(p, d)
		if m == nil {
			t.Fatalf("nobody was chosen: flaw %d", f)
		}
		got[m.index] += 1.0 / n
	}
	return got
}

func wantShares(t *testing.T, what string, got []float64, want ...float64) {
	t.Helper()
	for i := range want {
		if math.Abs(got[i]-want[i]) > 0.015 {
			t.Errorf("%s: shares %.3f, want %.3f", what, got, want)
			return
		}
	}
}

func TestSharesFollowWeights(t *testing.T) {
	t.Parallel()
	d := &demand{now: 95, after: 80}
	wantShares(t, "default", shares(t, members(1, 2, 1), nil, d), .25, .5, .25)
	wantShares(t, "weighted random", shares(t, members(1, 2, 1), WeightedRandom(), d), .25, .5, .25)
	wantShares(t, "round robin", shares(t, members(1, 2, 1), RoundRobin(), d), 1./3, 1./3, 1./3)
	wantShares(t, "least in flight", shares(t, members(1, 1, 1), LeastInFlight(), d), 1./3, 1./3, 1./3)
	wantShares(t, "dbresolver's round robin", shares(t, members(1, 1), PoolPolicy(dbresolver.StrictRoundRobinPolicy()), d), .5, .5)
	wantShares(t, "dbresolver's random", shares(t, members(1, 1), PoolPolicy(dbresolver.RandomPolicy{}), d), .5, .5)
}

func TestDefaultAvoidsTheSlowAndTheBusy(t *testing.T) {
	t.Parallel()
	d := &demand{now: 95, after: 80}
	r := members(1, 1)
	r.list[0].m.observe(3 * time.Millisecond)
	r.list[1].m.observe(time.Millisecond)
	// The slow one is used only when both draws fall on it.
	wantShares(t, "slow", shares(t, r, nil, d), .25, .75)
	r.list[1].m.inFlight.Store(10)
	wantShares(t, "quick but busy", shares(t, r, nil, d), .75, .25)
	r = members(1, 1)
	r.list[0].m.inFlight.Store(1)
	wantShares(t, "latency unknown", shares(t, r, nil, d), .25, .75)
	r = members(1, 3)
	r.list[0].m.inFlight.Store(2)
	r.list[1].m.inFlight.Store(5) // 5/3 < 2/1
	wantShares(t, "least in flight by weight", shares(t, r, LeastInFlight(), d), 0, 1)
}

func TestOnlyFitNodesAreChosen(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]Policy{
		"default": nil, "weighted": WeightedRandom(), "round robin": RoundRobin(), "in flight": LeastInFlight(),
		"pool": PoolPolicy(dbresolver.RandomPolicy{}),
	} {
		d := &demand{now: 95, after: 80, minLSN: 500}
		r := members(1, 5, 1, 2)
		r.list[0].m.fresh.Store(80) // not younger than what must be seen
		r.list[1].m.valid.Store(94)
		r.list[2].m.replayed.Store(499)
		wantShares(t, name, shares(t, r, p, d), 0, 0, 0, 1)
		d.exclude = r.list[3].m
		if m, f := r.pick(p, d); m != nil || f != flawStale {
			t.Errorf("%s: %v, flaw %d; want nobody, for being stale", name, m, f)
		}
		r.list[2].m.replayed.Store(500)
		r.list[0].m.fresh.Store(81)
		wantShares(t, name, shares(t, r, p, &demand{now: 95, after: 80, exclude: r.list[3].m})[1:2], 0)
	}
	if m, f := (&rotation{}).pick(nil, &demand{}); m != nil || f != flawDown {
		t.Errorf("an empty rotation gave %v, flaw %d", m, f)
	}
}

func TestNodeWithoutPositionsNeedsACallerWhoAcceptsAnything(t *testing.T) {
	t.Parallel()
	r := members(1)
	m := r.list[0].m
	m.unplaced = true
	m.fresh.Store(0)
	for _, tt := range []struct {
		d    demand
		want flaw
	}{
		{demand{now: 95}, flawStale},
		{demand{now: 95, any: true}, flawNone},
		{demand{now: 95, any: true, minLSN: 1}, flawLSN},
		{demand{now: 101, any: true}, flawDown},
	} {
		if got := m.flawOf(&tt.d); got != tt.want {
			t.Errorf("%+v: flaw %d, want %d", tt.d, got, tt.want)
		}
	}
}

// A foolish policy must not take the process down.
type outOfRange struct{}

func (outOfRange) Choose(c []Candidate) int { return len(c) + 7 }

func TestPolicyOutOfRangeIsBounded(t *testing.T) {
	t.Parallel()
	wantShares(t, "out of range", shares(t, members(1, 1), outOfRange{}, &demand{now: 95, after: 80}), 1, 0)
}

func TestLatencyIsAMovingAverage(t *testing.T) {
	t.Parallel()
	var m member
	m.observe(8 * time.Millisecond)
	if got := (Candidate{&m}).Latency(); got != 8*time.Millisecond {
		t.Errorf("the first measurement gives %v", got)
	}
	m.observe(0)
	if got := (Candidate{&m}).Latency(); got != 7*time.Millisecond {
		t.Errorf("8 ms and 0 give %v, want 7ms", got)
	}
	for range 1000 {
		m.observe(0)
	}
	if m.latency.Load() < 1 {
		t.Error("a measured latency became unknown")
	}
}

func BenchmarkPick(b *testing.B) {
	for _, bb := range []struct {
		name string
		p    Policy
		lag  bool
	}{{"default", nil, false}, {"default with one lagging", nil, true}, {"weighted random", WeightedRandom(), false}, {"round robin", RoundRobin(), false}, {"least in flight", LeastInFlight(), false}} {
		b.Run(bb.name, func(b *testing.B) {
			r := members(1, 2, 1)
			if bb.lag {
				r.list[1].m.fresh.Store(1)
			}
			d := &demand{now: 95, after: 80}
			b.ReportAllocs()
			for b.Loop() {
				r.pick(bb.p, d)
			}
		})
	}
}

// BenchmarkDecide is the whole decision for a read, the clock included.
func BenchmarkDecide(b *testing.B) {
	r := New(Config{})
	r.cfg = r.given.withDefaults()
	r.tightest = 2 * r.cfg.Probe.Interval
	r.lead.Store(newNode(r, 0, Node{}, true))
	r.primary().valid.Store(math.MaxInt64)
	all := []*node{r.primary()}
	for i := range 3 {
		n := newNode(r, i, Node{Weight: 1}, false)
		n.valid.Store(math.MaxInt64)
		n.fresh.Store(math.MaxInt64)
		all = append(all, n)
	}
	r.set.Store(&nodeSet{all})
	rot := &rotation{configured: 3}
	for _, n := range r.replicas() {
		rot.list = append(rot.list, Candidate{&n.member})
	}
	r.rotation.Store(rot)
	q := question{bound: r.cfg.MaxLag, now: r.now()} // a statement's attempt has read the clock
	b.ReportAllocs()
	for b.Loop() {
		if n, _ := r.decide(&q); n == r.primary() {
			b.Fatal("primary")
		}
	}
}

func TestZoneFirstLeavesTheZoneOnlyWhenNobodyIsFitThere(t *testing.T) {
	t.Parallel()
	r := members(1, 3, 1, 1)
	for i, z := range []string{"a", "a", "b", "c"} {
		r.list[i].m.zone = z
	}
	p, d := ZoneFirst("a", "b"), &demand{now: 95, after: 80}
	wantShares(t, "own zone, by weight", shares(t, r, p, d), .25, .75, 0, 0)
	r.list[1].m.observe(4 * time.Millisecond)
	r.list[0].m.observe(time.Millisecond)
	wantShares(t, "own zone, the slow one only when drawn twice", shares(t, r, p, d), 7./16, 9./16, 0, 0)
	r.list[0].m.valid.Store(1)
	r.list[1].m.valid.Store(1)
	wantShares(t, "second zone", shares(t, r, p, d), 0, 0, 1, 0)
	r.list[2].m.valid.Store(1)
	wantShares(t, "any zone", shares(t, r, p, d), 0, 0, 0, 1)
	wantShares(t, "no zone given", shares(t, members(1, 1), ZoneFirst(), d), .5, .5)
}

func TestChoosingAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun forbids it
	r, d := members(1, 1, 1), &demand{now: 95, after: 80}
	r.list[1].m.valid.Store(1)
	for name, p := range map[string]Policy{"default": nil, "weighted": WeightedRandom(), "in turn": RoundRobin(), "in flight": LeastInFlight(), "zone": ZoneFirst("x")} {
		if n := testing.AllocsPerRun(1000, func() { r.pick(p, d) }); n != 0 {
			t.Errorf("%s, with a node that is out: %v allocations", name, n)
		}
	}
}

func TestAPoolPolicyThatPanicsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	calls := 0
	p := PoolPolicy(dbresolver.PolicyFunc(func(pools []gorm.ConnPool) gorm.ConnPool {
		if calls++; calls == 1 {
			panic("a policy of somebody's own")
		}
		return pools[0]
	}))
	list := []Candidate{{&member{}}}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		p.Choose(list)
	}()
	done := make(chan int, 1)
	go func() { done <- p.Choose(list) }()
	select {
	case got := <-done:
		if got != 0 {
			t.Errorf("chose %d", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the policy is never asked again")
	}
}

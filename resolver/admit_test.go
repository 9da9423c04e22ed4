package resolver

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// lost is a replica that nobody reaches.
const lost = "postgres://127.0.0.1:1/none?sslmode=disable"

var noHint hook.Hint

func TestR10AllReplicasDeadByPriority(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) {
		cfg.Replicas = DSNs(lost)
		cfg.Pool = Pool{Max: 8, Min: -1}
		cfg.Priorities = Priorities{Normal: Class{Spill: 2, Wait: -1}, Background: Class{Wait: time.Millisecond}}
	})
	fresh := func(p Priority) context.Context {
		return WithPriority(inScope(deadline(t), "request"), p)
	}
	err := g.db.WithContext(fresh(Background)).First(&item{}).Error
	if !errors.Is(err, ErrNoReplica) || !strings.Contains(err.Error(), "all replicas are out of rotation (replica1: ") {
		t.Errorf("a background read gives %v", err)
	}
	must(t, g.db.WithContext(fresh(Background)).Create(&item{N: 1}).Error) // writes have no priority

	// Two normal reads spill, the third is refused, a critical one is served.
	var held []interface{ Close() error }
	for range 2 {
		rows, err := g.db.WithContext(fresh(Normal)).Model(&item{}).Rows()
		must(t, err)
		held = append(held, rows)
	}
	err = g.db.WithContext(fresh(Normal)).First(&item{}).Error
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "all replicas are out of rotation") || !strings.Contains(err.Error(), "2 such reads") {
		t.Errorf("one read too many gives %v", err)
	}
	must(t, g.db.WithContext(fresh(Critical)).First(&item{}).Error)
	must(t, g.db.WithContext(Primary(fresh(Normal))).First(&item{}).Error) // asked for, not spilled
	if s := g.r.Stats(); s.Spilled != 2 || s.Refused["normal"] != 1 || s.Refused["background"] != 1 {
		t.Errorf("%d spilled, refused %v", s.Spilled, s.Refused)
	}
	for _, rows := range held {
		must(t, rows.Close())
	}
	must(t, g.db.WithContext(fresh(Normal)).First(&item{}).Error)
	if n := g.r.spills.Load(); n != 0 {
		t.Errorf("%d reads count as spilled, and none is there", n)
	}
}

func TestR10TheDefaultCapIsHalfOfThePrimarysConnections(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) {
		cfg.Replicas = DSNs(lost)
		cfg.Pool = Pool{Max: 6, Min: -1}
		cfg.Priorities.Normal = Class{Wait: -1}
	})
	fresh := func() context.Context { return inScope(deadline(t), "request") }
	for n := range 4 {
		rows, err := g.db.WithContext(fresh()).Model(&item{}).Rows()
		if n < 3 {
			must(t, err)
			defer rows.Close()
		} else if !errors.Is(err, ErrBusy) {
			t.Errorf("read %d of 3 gives %v", n+1, err)
		}
	}
}

func TestReadsTakeTurnsOnThePrimaryWhenReplicasAreDead(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) {
		cfg.Replicas = DSNs(lost)
		cfg.Priorities.Normal = Class{Spill: 1, Wait: 30 * time.Second}
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := g.db.WithContext(inScope(context.Background(), "request")).First(&item{}).Error; err != nil {
					t.Error(err)
				}
				if n := g.r.spills.Load(); n > 2 { // one more may look whether it may
					t.Errorf("%d reads are on the primary", n)
				}
			}
		})
	}
	wg.Wait()
	if n := g.r.spills.Load() + g.r.spillWaiting.Load(); n != 0 {
		t.Errorf("%d left behind", n)
	}
}

func TestR10AllReplicasLagByPriority(t *testing.T) {
	t.Parallel()
	c := newClocked(Config{MaxLag: 2 * time.Second, Priorities: Priorities{
		Critical: Class{MaxLag: time.Second}, Background: Class{MaxLag: time.Minute},
	}})
	ask := func(p Priority, g *group) (bound time.Duration) {
		q := question{}
		c.ask(&q, &options{priority: p}, noHint, nil, &place{r: c.Resolver, g: g})
		return q.bound
	}
	strict, wide := &group{maxLag: 500 * time.Millisecond}, &group{maxLag: time.Hour}
	for _, tt := range []struct {
		p    Priority
		g    *group
		want time.Duration
	}{
		{Normal, nil, 2 * time.Second}, {Critical, nil, time.Second}, {Background, nil, time.Minute},
		{Normal, strict, strict.maxLag}, {Critical, strict, strict.maxLag}, {Background, strict, strict.maxLag},
		{Normal, wide, time.Hour}, {Critical, wide, time.Second}, {Background, wide, time.Minute},
	} {
		if got := ask(tt.p, tt.g); got != tt.want {
			t.Errorf("%v, group %+v: bound %v, want %v", tt.p, tt.g != nil, got, tt.want)
		}
	}
	q := question{}
	c.ask(&q, &options{priority: Background, bound: time.Millisecond, bounded: true}, noHint, nil, &place{r: c.Resolver, g: wide})
	if q.bound != time.Millisecond || !q.strict {
		t.Errorf("the call's bound gives %v", q.bound)
	}
	q = question{}
	c.ask(&q, &options{bound: time.Hour}, noHint, nil, &place{r: c.Resolver, g: wide, bound: time.Second})
	if q.bound != time.Second {
		t.Errorf("a second table's bound gives %v", q.bound)
	}
}

func TestReserveIsLeftToTheCritical(t *testing.T) {
	t.Parallel()
	n := newNode(New(Config{}), 0, Node{}, false)
	n.gate.bound(10, 2)
	in := 0
	for n.enter(Normal) {
		in++
	}
	if in != 8 {
		t.Errorf("%d normal reads entered, want 8", in)
	}
	if n.enter(Background) || !n.enter(Critical) || !n.enter(Critical) || !n.enter(Critical) {
		t.Error("the background entered, or the critical did not")
	}
	n.gate.waiting[Normal].Add(1)
	n.gate.waiting[Background].Add(1)
	for range 3 {
		n.leave()
	}
	if len(n.gate.room[Normal]) != 0 {
		t.Error("somebody was woken without room")
	}
	n.leave()
	if len(n.gate.room[Normal]) != 1 || len(n.gate.room[Background]) != 0 {
		t.Error("the normal read was not woken first")
	}
	n.gate.waiting[Normal].Add(-1)
	for n.inFlight.Load() >= 5 {
		n.leave()
	}
	if len(n.gate.room[Background]) != 1 {
		t.Error("the background was not woken")
	}
	// Who chose a node before it was drained, and comes after, is turned away.
	n.draining.Store(true)
	if n.enter(Critical) || n.inFlight.Load() != 4 {
		t.Error("a drained node took a read")
	}
	// Without a reserve the pool alone decides.
	n = newNode(New(Config{}), 0, Node{}, false)
	n.gate.bound(2, 0)
	for range 5 {
		if !n.enter(Normal) {
			t.Error("a pool without reserve holds a normal read back")
		}
	}
}

func TestReadsQueueForTheConnectionsThatAreTheirs(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Pool = Pool{Max: 3, Min: 1, Reserve: 1} })
	g.allInUse()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			p := Normal
			if i%4 == 0 {
				p = Background
			}
			for range 10 {
				ctx := WithPriority(inScope(deadline(t), "request"), p)
				if err := g.db.WithContext(ctx).Raw("SELECT pg_sleep(0.002)").Scan(new(string)).Error; err != nil && !errors.Is(err, ErrBusy) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range g.r.nodes() {
		for p := range n.gate.waiting {
			if w := n.gate.waiting[p].Load(); w != 0 || n.inFlight.Load() != 0 {
				t.Errorf("%s: %d wait, %d in flight", n.name, w, n.inFlight.Load())
			}
		}
	}
}

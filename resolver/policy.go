package resolver

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gorm.io/gorm"
)

// Policy chooses among the replicas that are fit for a read. Fitness itself
// (health, staleness, own writes) is not its concern.
type Policy interface {
	// Choose returns the index of one of candidates, of which there are at least
	// one. It is called for each read, from many goroutines, and must neither
	// block nor keep or change the slice.
	Choose(candidates []Candidate) int
}

// Candidate is a replica that a [Policy] may choose.
type Candidate struct{ m *member }

// Name is the node's name.
func (c Candidate) Name() string { return c.m.name }

// Zone is the node's zone as configured.
func (c Candidate) Zone() string { return c.m.zone }

// Weight is the node's share of the reads relative to the others', at least 1.
func (c Candidate) Weight() int { return c.m.weight }

// InFlight is the number of statements on the node now.
func (c Candidate) InFlight() int { return int(c.m.inFlight.Load()) }

// Latency is the moving average of the time that statements take there, 0 when
// none has ended yet.
func (c Candidate) Latency() time.Duration { return time.Duration(c.m.latency.Load()) }

// WeightedRandom draws by weight alone.
func WeightedRandom() Policy { return weightedRandom{} }

type weightedRandom struct{}

func (weightedRandom) Choose(list []Candidate) int {
	total := 0
	for _, c := range list {
		total += c.m.weight
	}
	point := rand.IntN(total)
	for i, c := range list {
		if point -= c.m.weight; point < 0 {
			return i
		}
	}
	return 0
}

// RoundRobin takes the replicas in turn, whatever their weights.
func RoundRobin() Policy { return new(roundRobin) }

type roundRobin struct{ next atomic.Uint64 }

func (r *roundRobin) Choose(list []Candidate) int {
	return int((r.next.Add(1) - 1) % uint64(len(list)))
}

// LeastInFlight takes the replica with the fewest statements on it relative to
// its weight, one of them at random when there are several.
func LeastInFlight() Policy { return leastInFlight{} }

type leastInFlight struct{}

func (leastInFlight) Choose(list []Candidate) int {
	best, ties := 0, 1
	for i := 1; i < len(list); i++ {
		a, b := list[best].m, list[i].m
		// in flight / weight, compared without dividing
		x, y := a.inFlight.Load()*int64(b.weight), b.inFlight.Load()*int64(a.weight)
		switch {
		case y < x:
			best, ties = i, 1
		case y == x:
			if ties++; rand.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return best
}

// ZoneFirst takes the replicas of the first of zones in which one is fit, and
// those of other zones when there are none. Among the replicas of a zone the
// choice is the default one.
func ZoneFirst(zones ...string) Policy { return zoneFirst(slices.Clone(zones)) }

type zoneFirst []string

func (z zoneFirst) Choose(list []Candidate) int {
	for _, zone := range z {
		total := 0
		for _, c := range list {
			if c.m.zone == zone {
				total += c.m.weight
			}
		}
		if total > 0 {
			return lighterOf(list, total, func(m *member) bool { return m.zone == zone })
		}
	}
	total := 0
	for _, c := range list {
		total += c.m.weight
	}
	return lighterOf(list, total, func(*member) bool { return true })
}

// lighterOf makes the two draws of the default policy among those of list that
// in takes, whose weights are total.
func lighterOf(list []Candidate, total int, in func(*member) bool) int {
	x := rand.Uint64()
	p, q := low(x, total), high(x, total)
	a, b := -1, -1
	for i, c := range list {
		if !in(c.m) {
			continue
		}
		if p -= c.m.weight; p < 0 && a < 0 {
			a = i
		}
		if q -= c.m.weight; q < 0 && b < 0 {
			b = i
		}
	}
	if a < 0 || b < 0 {
		return 0 // cannot be: the weights sum up to total
	}
	if lighter(list[a].m, list[b].m) == list[b].m {
		return b
	}
	return a
}

// PoolPolicy adapts a policy of gorm.io/plugin/dbresolver (its Policy,
// PolicyFunc, RandomPolicy, RoundRobinPolicy, StrictRoundRobinPolicy): it sees
// the pools of the replicas that are fit. A pool that it was not offered counts
// as the first. It is called under a lock, since not all of dbresolver's bear
// concurrent calls, and allocates a slice for each read.
func PoolPolicy(p interface {
	Resolve([]gorm.ConnPool) gorm.ConnPool
}) Policy {
	return &poolPolicy{p: p}
}

type poolPolicy struct {
	mu sync.Mutex // guards what p keeps
	p  interface {
		Resolve([]gorm.ConnPool) gorm.ConnPool
	}
}

func (a *poolPolicy) Choose(list []Candidate) int {
	pools := make([]gorm.ConnPool, len(list))
	for i, c := range list {
		pools[i], _ = c.m.pool.(gorm.ConnPool)
	}
	chosen := a.resolve(pools)
	for i, p := range pools {
		if p == chosen {
			return i
		}
	}
	return 0
}

func (a *poolPolicy) resolve(pools []gorm.ConnPool) gorm.ConnPool {
	a.mu.Lock()
	defer a.mu.Unlock() // also when p panics, which its caller may survive
	return a.p.Resolve(pools)
}

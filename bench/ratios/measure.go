package main

import (
	"math"
	"runtime"
	"slices"
	"time"
)

const (
	rounds = 31
	// slice is how long one side runs before the other's turn.
	slice = 15 * time.Millisecond
)

// pair is what one run of ours against a peer gave. Times are nanoseconds an
// operation, one of each side a round.
type pair struct {
	ours, peer             []float64
	oursAllocs, peerAllocs float64
}

// measure runs both sides in turn, so that what slows the machine slows both,
// and swaps who is first from round to round. Each side is a function that does
// its operation n times.
func measure(ours, peer func(n int)) pair {
	nOurs, nPeer := calibrate(ours), calibrate(peer)
	p := pair{oursAllocs: allocations(ours, nOurs), peerAllocs: allocations(peer, nPeer)}
	for round := range rounds {
		if round%2 == 0 {
			p.ours = append(p.ours, timed(ours, nOurs))
			p.peer = append(p.peer, timed(peer, nPeer))
		} else {
			p.peer = append(p.peer, timed(peer, nPeer))
			p.ours = append(p.ours, timed(ours, nOurs))
		}
	}
	return p
}

// calibrate returns how many operations fill a slice.
func calibrate(f func(int)) int {
	f(1) // whatever is made at first use
	for n := 1; ; n *= 2 {
		start := time.Now()
		f(n)
		if d := time.Since(start); d >= slice/2 {
			return max(1, int(float64(n)*float64(slice)/float64(d)))
		}
	}
}

func timed(f func(int), n int) float64 {
	start := time.Now()
	f(n)
	return float64(time.Since(start)) / float64(n)
}

func allocations(f func(int), n int) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f(n)
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

// interval is a median with the 95 % confidence interval of the median by order
// statistics: the ranks n/2 ± 0.98·√n of the sorted values (binomial, normal
// approximation; Conover, Practical Nonparametric Statistics, 3.2).
type interval struct{ median, low, high float64 }

func medianOf(values []float64) interval {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	half := 0.98 * math.Sqrt(float64(n))
	low := max(0, int(math.Floor(float64(n)/2-half)))
	high := min(n-1, int(math.Ceil(float64(n)/2+half)))
	return interval{s[n/2], s[low], s[high]}
}

// ratio is ours / peer, round by round.
func (p pair) ratio() interval { return medianOf(p.zip(func(o, q float64) float64 { return o / q })) }

// inverse is peer / ours: how many times faster we are.
func (p pair) inverse() interval { return medianOf(p.zip(func(o, q float64) float64 { return q / o })) }

// above is ours - peer in nanoseconds.
func (p pair) above() interval { return medianOf(p.zip(func(o, q float64) float64 { return o - q })) }

func (p pair) zip(f func(ours, peer float64) float64) []float64 {
	out := make([]float64, len(p.ours))
	for i := range out {
		out[i] = f(p.ours[i], p.peer[i])
	}
	return out
}

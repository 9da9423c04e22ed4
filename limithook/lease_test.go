package limithook

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestLeaseIsSpentOnceAndInItsTime(t *testing.T) {
	t.Parallel()
	const tick = 1 << tickBits
	var l lease
	if _, ok := l.spend(0, 1); ok || l.covers(0, 1) {
		t.Error("spent from nothing")
	}
	l.fill(5, 10*tick)
	if _, ok := l.spend(0, 6); ok {
		t.Error("spent more than there is")
	}
	was, ok := l.spend(9*tick, 3)
	if !ok || l.units() != 2 || !l.covers(0, 2) {
		t.Errorf("%v, %d left", ok, l.units())
	}
	// The end is rounded down: never late.
	for _, now := range []int64{10 * tick, 10*tick + 1, 1 << 60} {
		if _, ok := l.spend(now, 1); ok || l.covers(now, 1) {
			t.Errorf("spent at %d, after the end", now)
		}
	}
	l.giveBack(was, 3)
	if l.units() != 5 {
		t.Errorf("%d after 3 of 5 were given back", l.units())
	}
	was, _ = l.spend(0, 2)
	l.fill(7, 20*tick)
	l.giveBack(was, 2)
	if l.units() != 7 {
		t.Errorf("%d: what was of another lease was given back to this one", l.units())
	}
	l.fill(unitMask, 30*tick-1)
	if l.units() != unitMask || !l.covers(29*tick-1, unitMask) || l.covers(29*tick, 1) {
		t.Errorf("the largest lease has %d units", l.units())
	}
	if l.take() != unitMask || l.units() != 0 {
		t.Error("taken and still there")
	}
}

func TestLeaseIsSpentExactlyByMany(t *testing.T) {
	t.Parallel()
	const units, callers = 10_000, 8
	var l lease
	l.fill(units, 1<<40)
	var spent atomic.Int64
	var wg sync.WaitGroup
	for g := range callers {
		wg.Go(func() {
			for i := 0; ; i++ {
				tick, ok := l.spend(0, 1+g%3)
				if !ok {
					return
				}
				if i%5 == 0 {
					l.giveBack(tick, 1+g%3)
					continue
				}
				spent.Add(int64(1 + g%3))
			}
		})
	}
	wg.Wait()
	if left := l.units(); left > 2 || spent.Load()+int64(left) != units {
		t.Errorf("%d spent and %d left of %d", spent.Load(), left, units)
	}
}

// The script that gives leases back, against a list of them kept by hand.
func TestReturnedLeasesAgreeWithAModel(t *testing.T) {
	t.Parallel()
	c := client(t, "")
	type one struct{ instant, units int }
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 4))
		key := fmt.Sprint("{", digest(t.Name(), 4), seed, ".", namespaces.Add(1), "}")
		var leases []one
		base, sum := r.IntN(100), 0
		var entries []any
		for i := range 1 + r.IntN(6) {
			l := one{1000 + i/2*10, 1 + r.IntN(4)} // instants may be equal
			leases = append(leases, l)
			entries = append(entries, l.instant, base+sum, base+sum+l.units)
			sum += l.units
		}
		if err := c.RPush(t.Context(), key, entries...).Err(); err != nil {
			t.Fatal(err)
		}
		c.Expire(t.Context(), key, time.Minute)
		for range 5 {
			instant, n := 1000+r.IntN(4)*10, 1+r.IntN(5)
			epoch, err := returnScript.Run(t.Context(), c, []string{key, key + "epoch"}, instant, n).Int64()
			if err != nil {
				t.Fatal(err)
			}
			back := 0
			for i := len(leases) - 1; i >= 0; i-- {
				if leases[i].instant == instant {
					k := min(n-back, leases[i].units)
					leases[i].units -= k
					back += k
				}
			}
			leases = slices.DeleteFunc(leases, func(l one) bool { return l.units == 0 })
			var want []string
			at := base
			for _, l := range leases {
				want = append(want, strconv.Itoa(l.instant), strconv.Itoa(at), strconv.Itoa(at+l.units))
				at += l.units
			}
			got, err := c.LRange(t.Context(), key, 0, -1).Result()
			if err != nil || !slices.Equal(got, want) || (epoch > 0) != (back > 0) {
				t.Fatalf("seed %d: %d of %d given back, epoch %d: %v, want %v; %v", seed, n, instant, epoch, got, want, err)
			}
		}
	}
}

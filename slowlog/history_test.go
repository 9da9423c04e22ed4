package slowlog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func entryOf(shape uint64, text string, d time.Duration) Entry {
	return Entry{Fingerprint: shape, Shape: text, Duration: d}
}

func TestHistoryKeepsTheNewestUpToItsCount(t *testing.T) {
	t.Parallel()
	h := newHistory(3, 1<<20)
	for i := range 10 {
		e := entryOf(uint64(i), "", time.Duration(i))
		h.add(&e)
	}
	var got []time.Duration
	for _, e := range h.entries() {
		got = append(got, e.Duration)
	}
	if want := []time.Duration{9, 8, 7}; !slices.Equal(got, want) {
		t.Fatalf("entries = %v, want %v", got, want)
	}
	if n, shapes, _ := h.size(); n != 3 || shapes != 3 {
		t.Fatalf("size = %d entries, %d shapes, want 3 and 3", n, shapes)
	}
}

func TestHistoryStaysWithinItsBytesAndInOrder(t *testing.T) {
	t.Parallel()
	const maxBytes = 64 << 10
	h := newHistory(500, maxBytes)
	r := rand.New(rand.NewPCG(1, 2))
	var added []time.Duration
	for i := range 5000 {
		d := time.Duration(i)
		e := entryOf(r.Uint64N(300), strings.Repeat("x", r.IntN(3000)), d)
		h.add(&e)
		if r.IntN(3) == 0 {
			h.setPlan(r.Uint64N(300), &QueryPlan{Text: strings.Repeat("y", r.IntN(9000))})
		}
		added = append(added, d)
		entries := h.entries()
		if len(entries) == 0 {
			t.Fatal("the newest entry was not kept")
		}
		sum := 0
		for j, e := range entries {
			if e.Duration != added[len(added)-1-j] {
				t.Fatalf("after %d: entry %d is %v, want %v", i, j, e.Duration, added[len(added)-1-j])
			}
			sum += e.size()
		}
		shapes := 0
		for _, s := range h.shapes.Values() {
			shapes += s.size()
		}
		if sum != h.bytes || shapes != h.shapeBytes {
			t.Fatalf("after %d: counted %d and %d bytes, holds %d and %d", i, h.bytes, h.shapeBytes, sum, shapes)
		}
		if sum+shapes > maxBytes {
			t.Fatalf("after %d: %d bytes, bound %d", i, sum+shapes, maxBytes)
		}
	}
}

func TestEntryGreaterThanTheHistoryIsCountedButNotKept(t *testing.T) {
	t.Parallel()
	h := newHistory(10, 64<<10)
	small, large := entryOf(1, "a", 1), entryOf(2, strings.Repeat("x", 64<<10), 1)
	h.add(&small)
	h.add(&large)
	if got := h.entries(); len(got) != 1 || got[0].Fingerprint != 1 {
		t.Fatalf("entries = %d, want the small one", len(got))
	}
}

func TestTopOrdersByTotalTime(t *testing.T) {
	t.Parallel()
	h := newHistory(10, 1<<20)
	for _, e := range []Entry{entryOf(1, "once slow", 50), entryOf(2, "often", 20), entryOf(2, "often", 30), entryOf(2, "often", 10), entryOf(3, "little", 1)} {
		h.add(&e)
	}
	top := h.top(2)
	if len(top) != 2 || top[0].Shape != "often" || top[1].Shape != "once slow" {
		t.Fatalf("top = %+v", top)
	}
	if top[0].Count != 3 || top[0].Sum != 60 || top[0].Max != 30 || top[0].Mean() != 20 {
		t.Fatalf("often = %+v, want 3 times, 60 in all, 30 at most, 20 on average", top[0])
	}
	if n := len(h.top(-1)); n != 0 {
		t.Fatalf("top(-1) has %d", n)
	}
	if n := len(h.top(100)); n != 3 {
		t.Fatalf("top(100) has %d, want 3", n)
	}
}

func TestSeenCountsTheShapeUpToTheEntry(t *testing.T) {
	t.Parallel()
	h := newHistory(10, 1<<20)
	for i := range 3 {
		e := entryOf(7, "s", 1)
		h.add(&e)
		if e.Seen != uint64(i+1) {
			t.Fatalf("Seen = %d, want %d", e.Seen, i+1)
		}
	}
}

func TestPlanOfAShapeIsClaimedOncePerInterval(t *testing.T) {
	t.Parallel()
	h := newHistory(10, 1<<20)
	e := entryOf(7, "s", 1)
	h.add(&e)
	start := time.Now()
	steps := []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Minute, false}, {10*time.Minute - 1, false}, {10 * time.Minute, true}, {11 * time.Minute, false}}
	for _, s := range steps {
		if got := h.claim(7, start.Add(s.after), 10*time.Minute); got != s.want {
			t.Fatalf("claim after %v = %v, want %v", s.after, got, s.want)
		}
	}
	h.unclaim(7)
	if !h.claim(7, start.Add(11*time.Minute), 10*time.Minute) {
		t.Fatal("a claim that was taken back must be free again")
	}
	if h.claim(8, start, time.Minute) {
		t.Fatal("an unknown shape was claimed")
	}
}

func TestEntriesShowThePlanThatCameLater(t *testing.T) {
	t.Parallel()
	h := newHistory(10, 1<<20)
	e := entryOf(7, "s", 1)
	h.add(&e)
	plan := &QueryPlan{Text: "Seq Scan"}
	h.setPlan(7, plan)
	if got := h.entries()[0].Plan; got != plan {
		t.Fatalf("Plan = %v", got)
	}
}

func BenchmarkHistoryAdd(b *testing.B) {
	h := newHistory(1000, 8<<20)
	shapes := make([]string, 100)
	for i := range shapes {
		shapes[i] = fmt.Sprintf("SELECT * FROM t%d WHERE id = ?", i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		e := entryOf(uint64(i%100), shapes[i%100], time.Millisecond)
		h.add(&e)
	}
}

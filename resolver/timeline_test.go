package resolver

import (
	"math/rand/v2"
	"testing"
	"time"
)

const tick = int64(250 * time.Millisecond)

func TestStalenessIsTheAgeOfTheNewestReplayedSample(t *testing.T) {
	t.Parallel()
	var line timeline
	if _, ok := line.replayed(1000); ok {
		t.Error("an empty timeline knows a staleness")
	}
	for i := range int64(4) {
		line.add(sample{sent: 100 + i, lsn: uint64(1000 + 100*i)})
	}
	for _, tt := range []struct {
		lsn  uint64
		want int64
		ok   bool
	}{
		{999, 0, false},
		{1000, 100, true},
		{1099, 100, true},
		{1100, 101, true},
		{1300, 103, true},
		{9999, 103, true},
	} {
		if got, ok := line.replayed(tt.lsn); got != tt.want || ok != tt.ok {
			t.Errorf("replayed(%d) = %d, %v; want %d, %v", tt.lsn, got, ok, tt.want, tt.ok)
		}
	}
}

func TestIdlePrimaryMakesNobodyStale(t *testing.T) {
	t.Parallel()
	const lsn = 5000
	var line timeline
	now := int64(0)
	for range int(10 * time.Minute / (250 * time.Millisecond)) {
		now += tick
		line.add(sample{sent: now, lsn: lsn})
		if fresh, ok := line.replayed(lsn); !ok || now-fresh > tick {
			t.Fatalf("after %v idle the replica looks %v stale (%v)", time.Duration(now), time.Duration(now-fresh), ok)
		}
	}
	if n := len(line.samples); n != 1 {
		t.Errorf("%d samples of one LSN are kept", n)
	}
	// The first write after it: the replica has not replayed it yet, and is as
	// old as the last sample that did not show it.
	before := now
	now += tick
	line.add(sample{sent: now, lsn: lsn + 100})
	if fresh, ok := line.replayed(lsn); !ok || fresh != before {
		t.Errorf("the first write after idling makes the replica %v stale, want %v", time.Duration(now-fresh), time.Duration(now-before))
	}
}

func TestReplicaThatReplaysNothingAges(t *testing.T) {
	t.Parallel()
	var line timeline
	var now int64
	lsn := uint64(1 << 20)
	for range 20 {
		now += tick
		lsn += 100
		line.add(sample{sent: now, lsn: lsn})
	}
	stuckAt, stuckLSN := now, lsn
	// A day of unbroken writing: far more samples than are kept.
	for range int(24 * time.Hour / (250 * time.Millisecond)) {
		now += tick
		lsn += 100
		line.add(sample{sent: now, lsn: lsn})
		fresh, ok := line.replayed(stuckLSN)
		if ok && fresh > stuckAt {
			t.Fatalf("a replica stuck for %v looks only %v stale", time.Duration(now-stuckAt), time.Duration(now-fresh))
		}
		if !ok && now-stuckAt < int64(20*time.Second) {
			t.Fatalf("the staleness of a replica stuck for %v is not known any more", time.Duration(now-stuckAt))
		}
	}
	if len(line.samples) > timelineSize {
		t.Errorf("%d samples are kept", len(line.samples))
	}
}

func TestThinnedTimelineNeverFlatters(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var line timeline
	var all []sample
	s := sample{sent: 1, lsn: 1000}
	for range 20_000 {
		s.sent += 1 + rnd.Int64N(tick)
		s.lsn += uint64(rnd.IntN(3)) * 50
		line.add(s)
		all = append(all, s)
		replayed := 1000 + rnd.Uint64N(s.lsn-1000+100)
		truth, known := int64(0), false
		for i := len(all) - 1; i >= 0; i-- {
			if all[i].lsn <= replayed {
				truth, known = all[i].sent, true
				break
			}
		}
		got, ok := line.replayed(replayed)
		if ok && (!known || got > truth) {
			t.Fatalf("replayed(%d) = %d, all samples say %d (%v)", replayed, got, truth, known)
		}
	}
}

func TestOtherHistoryForgetsTheOldOne(t *testing.T) {
	t.Parallel()
	var line timeline
	line.add(sample{sent: 1, lsn: 1000})
	line.add(sample{sent: 2, lsn: 2000})
	line.add(sample{sent: 3, lsn: 1500}) // the primary lost WAL in a crash
	if _, ok := line.replayed(1000); ok {
		t.Error("a sample of the lost history is still compared with")
	}
	if sent, ok := line.replayed(1500); !ok || sent != 3 {
		t.Errorf("replayed(1500) = %d, %v", sent, ok)
	}
	line.add(sample{sent: 2, lsn: 1600}) // out of order
	if sent, _ := line.replayed(1600); sent != 3 {
		t.Errorf("a sample from before the last one was taken")
	}
}

func TestNormalizeMovesPositionsBehindHeadersOnly(t *testing.T) {
	t.Parallel()
	u := walUnits{block: 8192, segment: 4 << 20}
	const seg = 4 << 20
	for _, tt := range []struct{ lsn, want uint64 }{
		{3*seg + 5*8192 + 24, 3*seg + 5*8192},
		{3*seg + 5*8192 + 32, 3*seg + 5*8192 + 32},
		{3*seg + 5*8192, 3*seg + 5*8192},
		{3*seg + 5*8192 + 40, 3*seg + 5*8192 + 40},
		{3*seg + 40, 3 * seg},
		{3*seg + 24, 3*seg + 24},
		{3*seg + 48, 3*seg + 48},
		{0, 0},
	} {
		if got := u.normalize(tt.lsn); got != tt.want {
			t.Errorf("normalize(%X) = %X, want %X", tt.lsn, got, tt.want)
		}
	}
	if got := (walUnits{}).normalize(8192 + 24); got != 8192+24 {
		t.Errorf("without units an LSN is changed to %X", got)
	}
	// Over many pages exactly one position of each page moves, and never ahead.
	for lsn := uint64(seg); lsn < 2*seg+16*8192; lsn += 8 {
		got := u.normalize(lsn)
		if (got != lsn) != (lsn%seg == 40 || lsn%8192 == 24 && lsn%seg != 24) || got > lsn {
			t.Fatalf("normalize(%X) = %X", lsn, got)
		}
	}
}

func BenchmarkTimelineReplayed(b *testing.B) {
	var line timeline
	for i := range int64(timelineSize) {
		line.add(sample{sent: i, lsn: uint64(i) * 1000})
	}
	b.ReportAllocs()
	for b.Loop() {
		line.replayed(200_500)
	}
}

package run

import (
	"strings"
	"testing"
)

func TestFaultMeetsWhatOverlapsIt(t *testing.T) {
	t.Parallel()
	const ms = int64(1e6)
	spans := []Span{{From: 100 * ms, To: 200 * ms}, {From: 300 * ms, To: 400 * ms}}
	op := func(start, end int64) Traffic { return Traffic{Start: start * ms, End: end * ms} }
	failed := func(o Traffic) Traffic { o.Failed = true; return o }
	unended := func(o Traffic) Traffic { o.Unended = true; return o }
	both := []Traffic{op(150, 160), op(350, 360)}
	for _, tc := range []struct {
		name    string
		traffic []Traffic
		want    Met // but for its name, times and seconds
		noProof string
	}{
		{"nothing", nil, Met{Idle: 2}, "fault pause met no traffic"},
		{"what ends as it begins, and begins as it ends", []Traffic{op(50, 100), op(400, 450)}, Met{Operations: 2, SlowestMS: 50}, ""},
		{"what ends before, between and begins after", []Traffic{op(10, 99), op(201, 299), op(401, 500)}, Met{Idle: 2}, "fault pause met no traffic"},
		{"one that outlasts both counts once", []Traffic{op(10, 900)}, Met{Operations: 1, SlowestMS: 890}, ""},
		{"traffic in one of its two times", []Traffic{op(150, 151), op(150, 152)}, Met{Operations: 2, Idle: 1, SlowestMS: 2}, "fault pause met no traffic 1 of 2 times"},
		{"in any order", []Traffic{op(350, 360), op(500, 501), op(150, 155)}, Met{Operations: 2, SlowestMS: 10}, ""},
		{"what failed", append(both, failed(op(180, 190))), Met{Operations: 3, Failed: 1, SlowestMS: 10}, ""},
		{"the slowest outside is another matter", append(both, op(410, 9000)), Met{Operations: 2, SlowestMS: 10}, ""},
		{"nobody waited for its end", append(both, unended(op(180, 9000))), Met{Operations: 3, SlowestMS: 10}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := Meet("pause", spans, len(tc.traffic), func(i int) (Traffic, bool) { return tc.traffic[i], true })
			tc.want.Name, tc.want.Times, tc.want.Seconds = "pause", 2, 0.2
			if got != tc.want {
				t.Errorf("met %+v, want %+v", got, tc.want)
			}
			if why := got.NoProof(); why != tc.noProof {
				t.Errorf("does not count: %q, want %q", why, tc.noProof)
			}
		})
	}
}

func TestWhatIsNoTrafficMeetsNoFault(t *testing.T) {
	t.Parallel()
	spans := []Span{{From: 10, To: 20}}
	met := Meet("pause", spans, 3, func(i int) (Traffic, bool) { return Traffic{Start: 12, End: 13, Failed: true}, i == 1 })
	if met.Operations != 1 || met.Failed != 1 {
		t.Errorf("met %+v, want the one that is traffic", met)
	}
	met = Meet("pause", spans, 3, func(int) (Traffic, bool) { return Traffic{Start: 12, End: 13}, false })
	if why := met.NoProof(); why != "fault pause met no traffic" {
		t.Errorf("does not count: %q", why)
	}
	met = Meet("pause", nil, 3, func(int) (Traffic, bool) { return Traffic{Start: 12, End: 13}, true })
	if why := met.NoProof(); why != "fault pause did not come to happen" {
		t.Errorf("does not count: %q", why)
	}
}

func TestShareCountsFromItsBoundOn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		part, whole int
		want        string
	}{
		{30, 100, ""},
		{100, 100, ""},
		{299, 1000, "29.9 % of the fills came from replicas: must be at least 30 %"},
		{2999999, 10000000, "29.9 % of the fills came from replicas: must be at least 30 %"},
		{0, 100, "0.0 % of the fills came from replicas: must be at least 30 %"},
		{0, 0, "0.0 % of the fills came from replicas: must be at least 30 %"},
	} {
		s := Share{Part: tc.part, Whole: tc.whole, Least: 0.3, What: "of the fills came from replicas"}
		if got := s.NoProof(); got != tc.want {
			t.Errorf("%d of %d: %q, want %q", tc.part, tc.whole, got, tc.want)
		}
	}
}

func TestTableTellsFaultsAndCounts(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	met := Met{Name: "pause", Times: 2, Seconds: 1.5, Operations: 7, Failed: 3, SlowestMS: 12.4}
	met.Print(&b)
	counts := Counts{}
	for _, status := range []string{"ok", "ok", "failed"} {
		counts.Add("write", status)
	}
	counts.Print(&b, []string{"read", "write"}, []string{"ok", "failed", "unknown"})
	want := "fault pause\t2 times, 1.5 s\t7 operations, 3 failed\tslowest 12 ms\nwrite\t2 ok\t1 failed\n"
	if b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
}

func TestVerdictTellsWhyARunShowsNothingAndWhatItBroke(t *testing.T) {
	t.Parallel()
	rules := []string{"first", "second", "third"}
	var b strings.Builder
	PrintVerdict(&b, map[string]int{"read: no": 3, "commit: no": 12}, []string{"no traffic"}, rules, map[string]int{"third": 1, "first": 20}, []string{"first: it broke"})
	want := "  12 × commit: no\n   3 × read: no\ndoes not count: no traffic\nVIOLATIONS of «first»: 20\nVIOLATIONS of «third»: 1\n  first: it broke\n"
	if b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
	b.Reset()
	PrintVerdict(&b, nil, nil, rules, nil, nil)
	if b.String() != "violations 0\n" {
		t.Errorf("printed %q of a run that was well", b.String())
	}
}

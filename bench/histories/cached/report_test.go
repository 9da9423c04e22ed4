package cached

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gorminfra/infra/bench/histories/run"
)

func TestRunCountsOnlyWithHitsReplicasTrafficAndFaults(t *testing.T) {
	t.Parallel()
	s := Settings{Ops: 5, faults: []fault{{Name: "pause"}}}
	met := run.Happened{"pause": {{From: 25 * ms, To: 45 * ms}}}
	story := func(hits int, fill uint8) *history {
		s := oneWrite().add(with(key(b, fromFill, 30, 31, at(1, w1)), func(o *op) { o.Flags = fill }))
		for range hits {
			s.add(key(b, fromL1, 40, 41, at(1, w1)))
		}
		for range 3 - hits {
			s.add(key(b, fromDatabase, 40, 41, at(1, w1)))
		}
		return s.h
	}
	for _, tc := range []struct {
		name     string
		h        *history
		happened run.Happened
		want     string // of what does not count; empty: it counts
	}{
		{"it counts", story(3, standby), met, ""},
		{"too few hits", story(1, standby), met, "25.0 % of the cacheable reads were hits"},
		{"fills of the primary", story(3, 0), met, "0.0 % of the fills came from replicas"},
		{"a fault without traffic", story(3, standby), run.Happened{"pause": {{From: 100 * ms, To: 200 * ms}}}, "met no traffic"},
		{"a fault that did not happen", story(3, standby), nil, "did not come to happen"},
		{"too few operations", oneWrite().h, met, "time was over after 1 of 5"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(summarize(s, tc.h, tc.happened, nil).NoProof, "; ")
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("does not count: %q, want %q", got, tc.want)
			}
		})
	}
}

func TestLogKeepsOperations(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l, err := createLog(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []op{
		wrote(a, 1, 10, 20, at(1, w1), gone(2, w1+1)),
		with(group(b, fromL2, 1, 2), func(o *op) { o.Session, o.Flags, o.Status = 77, full|standby, unknown }),
	}
	for i := range want {
		if err := l.add(&want[i]); err != nil {
			t.Fatal(err)
		}
	}
	cut := want[0].append(nil)
	if _, err := l.file.Write(cut[:len(cut)-1]); err != nil { // a process that was killed
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	got, err := readLog(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, %v, want %v", got, err, want)
	}
}

func TestIDsTellInstancesWritesAndStatementsApart(t *testing.T) {
	t.Parallel()
	for _, inst := range []uint8{0, 1, 255} {
		for _, seq := range []uint32{1, 1<<seqBits - 1} {
			for step := range uint32(1 << stmtBits) {
				id := newID(inst, seq) + step
				if instanceOf(id) != inst || writeOf(id) != newID(inst, seq) {
					t.Fatalf("%x is of instance %d and write %x, want %d and %x", id, instanceOf(id), writeOf(id), inst, newID(inst, seq))
				}
			}
		}
	}
}

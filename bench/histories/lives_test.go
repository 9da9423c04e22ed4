package main

import (
	"path/filepath"
	"slices"
	"testing"
)

// A log as a process leaves it that is killed: of its last write it says only that
// it began, and its last record is cut off.
func TestKilledWorkerCountsWithWhatItHadLogged(t *testing.T) {
	t.Parallel()
	start := func(o op) op { o.End, o.Status, o.Flags = o.Start, unknown, begun; return o }
	first, second := writeOf(0xa, 1, 10, 20, 1, done), start(writeOf(0xb, 1, 30, 0, 0, unknown))
	back := start(writeOf(0xc, 1, 30, 0, 0, unknown))
	back.Kind = kindRollback
	seen := []Entry{{Writer: 0xb, Cell: 7, Version: 2}}
	for _, c := range []struct {
		name    string
		logged  []op
		others  []op
		journal []Entry
		want    []string
	}{
		{"what was acknowledged is lost", []op{start(first), first, second}, nil, []Entry{}, []string{ruleLost}},
		{"what was under way has not happened", []op{start(first), first, second}, nil, nil, nil},
		{"what was under way has happened", []op{start(first), first, second}, nil, seen, nil},
		{"it has happened twice", []op{start(first), first, second}, nil, append(seen, Entry{Writer: 0xb, Cell: 7, Version: 3}), []string{ruleDoubled}},
		{"it was to be rolled back", []op{start(first), first, back}, nil, []Entry{{Writer: 0xc, Cell: 7, Version: 2}}, []string{ruleUnwanted}},
		{
			"its session goes on elsewhere and misses its write",
			[]op{start(first), first, second},
			[]op{{Session: 1, Worker: 2, Cell: 7, Kind: kindRead, Start: 70, End: 80, Flags: standby | carried}},
			nil,
			[]string{ruleOwnWrites},
		},
		{
			"its session goes on elsewhere and sees it",
			[]op{start(first), first, second},
			[]op{{Session: 1, Worker: 2, Cell: 7, Kind: kindRead, Start: 70, End: 80, Version: 1, Writer: 0xa, Flags: standby | carried}},
			nil,
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "log")
			log, err := createLog(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.logged {
				if err := log.add(&c.logged[i]); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := log.file.Write([]byte("a record that was cut off")); err != nil {
				t.Fatal(err)
			}
			if err := log.close(); err != nil {
				t.Fatal(err)
			}
			ops, err := readLog(path)
			if err != nil {
				t.Fatal(err)
			}
			h := &history{killed: map[uint16]int64{1: 60}, journal: c.journal}
			if c.journal == nil || len(c.journal) > 0 {
				h.journal = append([]Entry{{Writer: 0xa, Cell: 7, Version: 1}}, c.journal...)
			}
			h.ops = append(h.finished(ops), c.others...)
			if len(h.ops) != 2+len(c.others) {
				t.Errorf("operations %v: must be one for each write", h.ops)
			}
			var got []string
			found, _ := check(h)
			for _, v := range found {
				got = append(got, v.rule)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("violations of %q, want %q: %v", got, c.want, found)
			}
		})
	}
}

func TestIDsTellTheWorker(t *testing.T) {
	t.Parallel()
	for _, life := range []int{0, 1, 300} {
		w := &worker{cfg: workerConfig{Index: life}}
		if got := workerOf(w.newID()); got != uint16(life) {
			t.Errorf("worker %d: its ID says %d", life, got)
		}
	}
}

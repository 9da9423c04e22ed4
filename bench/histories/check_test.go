package main

import (
	"math"
	"slices"
	"testing"

	"github.com/gorminfra/infra/bench/histories/run"
)

// A tiny history: worker and session 1 write version 1 of cell 7 at [10 20].
func base() *history {
	return &history{
		ops:     []op{{ID: 0xa, Session: 1, Worker: 1, Cell: 7, Kind: kindWrite, Start: 10, End: 20, Version: 1}},
		journal: []Entry{{Writer: 0xa, Cell: 7, Version: 1}},
	}
}

func (h *history) with(ops ...op) *history { h.ops = append(h.ops, ops...); return h }

func (h *history) entry(e ...Entry) *history { h.journal = append(h.journal, e...); return h }

func readOf(session uint64, start, end, version int64, writer uint64, flags uint8) op {
	return op{Session: session, Worker: uint16(session), Cell: 7, Kind: kindRead, Start: start, End: end, Version: version, Writer: writer, Flags: flags}
}

func writeOf(id, session uint64, start, end, version int64, s status) op {
	return op{ID: id, Session: session, Worker: uint16(session), Cell: 7, Kind: kindWrite, Start: start, End: end, Version: version, Status: s}
}

func bounded(o op, bound int64) op { o.Bound = bound; return o }

func TestCheckFindsWhatAHistoryViolates(t *testing.T) {
	t.Parallel()
	second := []Entry{{Writer: 0xb, Cell: 7, Version: 2}}
	other := func(o op) op { o.Cell = 8; return o }
	for _, c := range []struct {
		name string
		h    *history
		want []string
	}{
		{"nothing but a write", base(), nil},
		{"own write read back", base().with(readOf(1, 30, 40, 1, 0xa, standby)), nil},
		{"own write not read back", base().with(readOf(1, 30, 40, 0, 0, standby)), []string{ruleOwnWrites}},
		{"own write not read back, by a read-only transaction", base().with(func() op {
			o := readOf(1, 30, 40, 0, 0, standby)
			o.Kind = kindReadOnly
			return o
		}()), []string{ruleOwnWrites}},
		{"a read that overlaps the write may miss it", base().with(readOf(1, 15, 40, 0, 0, standby)), nil},
		{"a failed read is no read", base().with(op{Session: 1, Worker: 1, Cell: 7, Kind: kindRead, Start: 30, End: 40, Status: failed}), nil},
		{"somebody else may miss it", base().with(readOf(2, 30, 40, 0, 0, standby)), nil},
		{"the process without scopes may not miss a write in a scope", base().with(readOf(1, 30, 40, 0, 0, standby|scopeless)), []string{ruleOwnWrites}},
		{"the primary may not miss it for anybody", base().with(readOf(2, 30, 40, 0, 0, 0)), []string{rulePrimary}},

		{"a session goes back", base().with(readOf(2, 30, 40, 1, 0xa, standby), readOf(2, 50, 60, 0, 0, standby)), []string{ruleMonotonic}},
		{"reads at the same time may differ", base().with(readOf(2, 30, 40, 1, 0xa, standby), readOf(2, 35, 60, 0, 0, standby)), nil},
		{"two sessions may differ", base().with(readOf(2, 30, 40, 1, 0xa, standby), readOf(3, 50, 60, 0, 0, standby)), nil},
		{"without scopes readers may differ", base().with(readOf(2, 30, 40, 1, 0xa, standby|scopeless), readOf(2, 50, 60, 0, 0, standby|scopeless)), nil},
		{
			"a session goes back in another cell",
			base().with(other(writeOf(0xb, 3, 30, 40, 1, done)), other(readOf(2, 50, 60, 1, 0xb, standby)), readOf(2, 70, 80, 0, 0, standby)).
				entry(Entry{Writer: 0xb, Cell: 8, Version: 1}), []string{ruleMonotonic},
		},
		{
			"a session misses what came before its own write",
			base().with(other(writeOf(0xb, 3, 30, 40, 1, done)), readOf(3, 70, 80, 0, 0, standby)).
				entry(Entry{Writer: 0xb, Cell: 8, Version: 1}), []string{ruleOwnWrites},
		},
		{
			"writes at the same time have no order",
			base().with(other(writeOf(0xb, 3, 15, 40, 1, done)), readOf(3, 70, 80, 0, 0, standby)).
				entry(Entry{Writer: 0xb, Cell: 8, Version: 1}), nil,
		},

		{"within the bound", base().with(bounded(readOf(2, 100, 110, 0, 0, standby), 80)), nil},
		{"beyond the bound", base().with(bounded(readOf(2, 101, 110, 0, 0, standby), 80)), []string{ruleStaleness}},
		{"no bound was asked for", base().with(readOf(2, math.MaxInt32, math.MaxInt32, 0, 0, standby)), nil},

		{"lost", &history{ops: base().ops}, []string{ruleLost}},
		{"lost to another write of the same version", base().entry(Entry{Writer: 0xb, Cell: 7, Version: 1}).with(writeOf(0xb, 2, 30, 40, 1, done)), []string{ruleLost}},
		{"acknowledged as another version", &history{ops: base().ops, journal: []Entry{{Writer: 0xa, Cell: 7, Version: 2}, {Writer: 0xb, Cell: 7, Version: 1}}}, []string{ruleLost, ruleUnwanted}},
		{"a version is missing", base().entry(Entry{Writer: 0xb, Cell: 7, Version: 3}).with(writeOf(0xb, 2, 30, 40, 3, done)), []string{ruleLost}},
		{"doubled", base().entry(Entry{Writer: 0xa, Cell: 7, Version: 2}), []string{ruleDoubled}},
		{"unknown, and happened once", base().with(writeOf(0xb, 2, 30, 40, 0, unknown)).entry(second...), nil},
		{"unknown, and never happened", base().with(writeOf(0xb, 2, 30, 40, 0, unknown)), nil},
		{"unknown, and happened twice", base().with(writeOf(0xb, 2, 30, 40, 0, unknown)).entry(second...).entry(Entry{Writer: 0xb, Cell: 7, Version: 3}), []string{ruleDoubled}},
		{"unknown binds nobody", base().with(writeOf(0xb, 1, 30, 40, 0, unknown), readOf(1, 50, 60, 1, 0xa, standby)).entry(second...), nil},
		{"failed, and happened", base().with(writeOf(0xb, 2, 30, 40, 0, failed)).entry(second...), []string{ruleUnwanted}},
		{"rolled back, and happened", base().with(op{ID: 0xb, Session: 2, Cell: 7, Kind: kindRollback, Start: 30, End: 40, Version: 2}).entry(second...), []string{ruleUnwanted}},
		{"nobody made it", base().entry(second...), []string{ruleUnwanted}},

		{"a read of what was rolled back", base().with(readOf(2, 30, 40, 2, 0xb, standby)), []string{ruleContent}},
		{"a read of another's version", base().with(readOf(2, 30, 40, 1, 0xb, standby)), []string{ruleContent}},
		{"a transaction misses its own write", base().with(op{ID: 0xa, Session: 1, Cell: 7, Kind: kindInside, Start: 12, End: 13}), []string{ruleTransition}},
		{"a transaction sees its own write", base().with(op{ID: 0xa, Session: 1, Cell: 7, Kind: kindInside, Start: 12, End: 13, Version: 1, Writer: 0xa}), nil},
		{"a token at a boundary starves", base().with(func() op {
			o := writeOf(0xb, 2, 30, 40, 2, done)
			o.Kind, o.Flags = kindPage, boundary|starved
			return o
		}()).entry(second...), []string{rulePages}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			found, _ := check(c.h)
			for _, v := range found {
				got = append(got, v.rule)
				if v.what == "" {
					t.Errorf("%s says nothing", v.rule)
				}
			}
			if !slices.Equal(slices.Compact(got), c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

func TestCheckFreezesLagWhileThereIsNoPrimary(t *testing.T) {
	t.Parallel()
	h := base().with(bounded(readOf(2, 500, 510, 0, 0, standby), 80))
	h.absences = []run.Span{{From: 90, To: 600}}
	if found, _ := check(h); len(found) != 0 {
		t.Errorf("the read may be as old as when the primary went: %v", found)
	}
	h.absences = []run.Span{{From: 110, To: 600}}
	if found, _ := check(h); len(found) != 1 || found[0].rule != ruleStaleness {
		t.Errorf("when the primary went the bound had been exceeded: %v", found)
	}
}

func TestCommitMayShowOnAStandbyFirst(t *testing.T) {
	t.Parallel()
	h := func(flags uint8) *history {
		return base().entry(Entry{Writer: 0xb, Cell: 7, Version: 2}).
			with(writeOf(0xb, 3, 30, 90, 2, done), readOf(2, 50, 60, 2, 0xb, standby), readOf(2, 70, 80, 1, 0xa, flags))
	}
	if found, early := check(h(0)); len(found) != 0 || early != 1 {
		t.Errorf("found %v and %d early commits on the primary, want none and 1", found, early)
	}
	if found, _ := check(h(standby)); len(found) != 1 || found[0].rule != ruleMonotonic {
		t.Errorf("found %v on another standby, want it", found)
	}
}

func TestShortestViolationComesFirst(t *testing.T) {
	t.Parallel()
	found, _ := check(base().with(readOf(1, 300, 400, 0, 0, standby), readOf(1, 30, 40, 0, 0, standby)))
	if len(found) != 2 || found[0].length() != 30 || found[1].length() != 390 {
		t.Errorf("found %v, want that of 30 ns before that of 390 ns", found)
	}
}

func TestFillerLeavesRoomForACommit(t *testing.T) {
	t.Parallel()
	for at := uint64(pageHeader); at < 2*walSegment; at += 8 {
		if at%walPage < pageHeader || at%walSegment < firstHeader {
			continue // within a header
		}
		n := filler(at)
		header := 2
		if n+messageBody > 255 {
			header = 5
		}
		size := (messageHeader + header + messageBody + n + 7) &^ 7
		end := at + uint64(size)
		if page := at / walPage; end > (page+1)*walPage { // it goes on behind the next page's header
			end += pageHeader
			if (page+1)*walPage%walSegment == 0 {
				end += firstHeader - pageHeader
			}
		}
		if n < 0 || end%walPage != walPage-commitRecord {
			t.Fatalf("at %#x a message of %d ends at %#x, want %d before the page's end", at, n, end, commitRecord)
		}
	}
}

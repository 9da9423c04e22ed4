package cached

import (
	"slices"
	"strings"
	"testing"

	"github.com/gorminfra/infra/bench/histories/run"
)

const ms = int64(1e6)

// The instances of the tests: a has a lease of 300 ms, b the same and scopes, c
// asks at each hit and fails writes that Redis is not told of.
const a, b, c = 1, 2, 3

// story is a history in the making.
type story struct{ h *history }

func begin() *story {
	return &story{&history{
		ttl: 4000 * ms, maxLag: 1000 * ms,
		instances: map[uint8]instance{
			a: {lease: 300 * ms}, b: {lease: 300 * ms, scoped: true}, c: {failWrite: true},
		},
	}}
}

func (s *story) add(o op) *story {
	s.h.ops = append(s.h.ops, o)
	slices.SortStableFunc(s.h.ops, func(x, y op) int { return int(x.Start - y.Start) })
	return s
}

// id of the n-th write of an instance.
func id(inst uint8, n uint32) uint32 { return newID(inst, n) }

// at makes item 7, whose first group is 7, have a version by a write's statement.
func at(version uint32, writer uint32) cell { return cell{7, 7, version, writer} }

func gone(version uint32, writer uint32) cell { return cell{7, none, version, writer} }

// wrote is a committed write from start to end, in ms.
func wrote(inst uint8, n uint32, start, end int64, cells ...cell) op {
	return op{ID: id(inst, n), Inst: inst, Kind: kindCommit, Start: start * ms, Commit: (start + 1) * ms, End: end * ms, Cells: cells}
}

func with(o op, change func(o *op)) op { change(&o); return o }

// key reads item 7 by its key.
func key(inst uint8, from source, start, end int64, cells ...cell) op {
	return op{Inst: inst, Kind: kindKey, Query: 7, From: from, Start: start * ms, End: end * ms, Cells: cells}
}

// group reads the items of group 7.
func group(inst uint8, from source, start, end int64, cells ...cell) op {
	return op{Inst: inst, Kind: kindList, Query: firstItems + 7, From: from, Start: start * ms, End: end * ms, Cells: cells}
}

func inSession(session uint32, o op) op { o.Session = session; return o }

var w1 = id(a, 1) + 1 // the first statement of a's first write

// one is the story of a's write of version 1 of item 7, from 10 to 20 ms.
func oneWrite() *story { return begin().add(wrote(a, 1, 10, 20, at(1, w1))) }

func TestCheckFindsWhatBreaksTheContract(t *testing.T) {
	t.Parallel()
	old := at(0, 0)
	second := id(b, 1) + 1
	moved := cell{7, 8, 1, w1}
	for _, tc := range []struct {
		name string
		s    *story
		want []string
	}{
		{"nothing but a write", oneWrite(), nil},
		{"it is seen", oneWrite().add(key(a, fromL1, 30, 31, at(1, w1))), nil},
		{"the writer's instance hits what is from before", oneWrite().add(key(a, fromL1, 21, 22, old)), []string{ruleOwn}},
		{"so does L2", oneWrite().add(key(a, fromL2, 21, 22, old)), []string{ruleOwn}},
		{"so does another's fill", oneWrite().add(key(a, fromShared, 21, 22, old)), []string{ruleOwn}},
		{"a hit that began before the commit returned may", oneWrite().add(key(a, fromL1, 19, 40, old)), nil},

		{"another instance within the lease", oneWrite().add(key(b, fromL1, 319, 321, old)), nil},
		{"another instance beyond it", oneWrite().add(key(b, fromL1, 321, 322, old)), []string{ruleLease}},
		{"one without a lease", oneWrite().add(key(c, fromL1, 21, 22, old)), []string{ruleLease}},
		{"a list that misses it", oneWrite().add(group(b, fromL1, 321, 322, old)), []string{ruleLease}},

		{"Redis was not told", begin().add(with(wrote(a, 1, 10, 20, at(1, w1)), func(o *op) { o.Flags = untold })).add(key(b, fromL1, 4000, 4001, old)), nil},
		{"not told, but on the same instance", begin().add(with(wrote(a, 1, 10, 20, at(1, w1)), func(o *op) { o.Flags = untold })).add(key(a, fromL1, 30, 31, old)), []string{ruleOwn}},
		{"not told, and beyond the TTL", begin().add(with(wrote(a, 1, 10, 20, at(1, w1)), func(o *op) { o.Flags = untold })).add(key(b, fromL1, 5021, 5022, old)), []string{ruleTTL}},
		{"not told, and the write should have failed", begin().add(with(wrote(c, 1, 10, 20, at(1, id(c, 1)+1)), func(o *op) { o.Flags = untold })).add(key(b, fromL1, 321, 322, old)), []string{ruleLease}},

		{"from the database, on the primary", oneWrite().add(key(b, fromDatabase, 21, 22, old)), []string{ruleDatabase}},
		{"from the database, on a replica within the lag", oneWrite().add(with(key(b, fromFill, 900, 901, old), func(o *op) { o.Flags = standby })), nil},
		{"from the database, on a replica, behind its own write", oneWrite().add(with(key(a, fromFill, 30, 31, old), func(o *op) { o.Flags = standby })), []string{ruleOwn}},
		{"from the database, on a replica far behind", oneWrite().add(with(key(b, fromFill, 9000, 9001, old), func(o *op) { o.Flags = standby })), []string{ruleDatabase}},

		{"the answers to a query go back", oneWrite().add(key(b, fromL1, 30, 31, at(1, w1))).add(key(b, fromL1, 32, 33, old)), []string{ruleMonotonic}},
		{"two queries may differ", oneWrite().add(key(b, fromL1, 30, 31, at(1, w1))).add(group(b, fromL1, 32, 33, old)), nil},
		{"a session's may not", oneWrite().add(inSession(9, key(b, fromL1, 30, 31, at(1, w1)))).add(inSession(9, group(b, fromL1, 32, 33, old))), []string{ruleSession}},
		{"nor may a hit fall behind what the session read in the database", oneWrite().add(inSession(9, key(b, fromDatabase, 30, 31, at(1, w1)))).add(inSession(9, key(b, fromL1, 32, 33, old))), []string{ruleSession}},
		{"it may where Redis was not told", begin().add(with(wrote(a, 1, 10, 20, at(1, w1)), func(o *op) { o.Flags = untold })).add(inSession(9, key(b, fromDatabase, 30, 31, at(1, w1)))).add(inSession(9, key(b, fromL1, 32, 33, old))), nil},
		{"two sessions may", oneWrite().add(inSession(8, key(b, fromL1, 30, 31, at(1, w1)))).add(inSession(9, group(b, fromL1, 32, 33, old))), nil},
		{"reads at the same time may differ", oneWrite().add(key(b, fromL1, 30, 40, at(1, w1))).add(key(b, fromL1, 35, 36, old)), nil},

		{"a rolled back version is seen", begin().add(with(wrote(a, 1, 10, 20, at(1, w1)), func(o *op) { o.Kind = kindRollback })).add(key(b, fromL1, 30, 31, at(1, w1))), []string{ruleUncommitted}},
		{"a failed one is", begin().add(with(wrote(a, 1, 10, 20, at(1, w1)), func(o *op) { o.Status = failed })).add(key(b, fromL1, 30, 31, at(1, w1))), []string{ruleUncommitted}},
		{"one is seen that was rolled back to a savepoint", begin().add(wrote(a, 1, 10, 20, at(1, w1+1))).add(key(b, fromL1, 30, 31, at(1, w1))), []string{ruleUncommitted}},
		{"one is seen before COMMIT", begin().add(wrote(a, 1, 10, 20, at(1, w1))).add(key(b, fromL1, 8, 9, at(1, w1))), []string{ruleUncommitted}},
		{"one is seen that nobody wrote", oneWrite().add(key(b, fromL1, 30, 31, at(1, w1+64))), []string{ruleContent}},
		{"one is seen in a group that it was not put into", oneWrite().add(key(b, fromL1, 30, 31, moved)), []string{ruleContent}},
		{"the unknown version of a write", oneWrite().add(key(b, fromL1, 30, 31, at(2, w1))), []string{ruleContent}},
		{"two writes made one version", oneWrite().add(wrote(b, 1, 30, 40, at(1, second))), []string{ruleLost}},

		{"a transaction does not see its write", begin().add(op{ID: w1, Inst: a, Kind: kindInside, Query: 7, Start: 11 * ms, End: 12 * ms, Cells: []cell{old}}), []string{ruleInside}},
		{"a transaction sees it", begin().add(op{ID: w1, Inst: a, Kind: kindInside, Query: 7, Start: 11 * ms, End: 12 * ms, Cells: []cell{at(1, w1)}}), nil},

		{"a deleted row is found", begin().add(wrote(a, 1, 10, 20, gone(1, w1))).add(key(c, fromL1, 21, 22, old)), []string{ruleLease}},
		{"it is not found", begin().add(wrote(a, 1, 10, 20, gone(1, w1))).add(key(c, fromL1, 21, 22)), nil},
		{"not found, though it was never deleted", oneWrite().add(key(c, fromL1, 21, 22)), []string{ruleLease}},
		{"not found, though it is back", begin().add(wrote(a, 1, 10, 20, gone(1, w1))).add(wrote(b, 1, 30, 40, at(2, second))).add(key(c, fromL1, 41, 42)), []string{ruleLease}},
		{"not found before it was back", begin().add(wrote(a, 1, 10, 20, gone(1, w1))).add(wrote(b, 1, 30, 40, at(2, second))).add(key(c, fromL1, 35, 36)), nil},
		{"a group's list without a row that has come", begin().add(wrote(a, 1, 10, 20, moved)).add(wrote(b, 1, 30, 40, at(2, second))).add(group(c, fromL1, 41, 42)), []string{ruleLease}},
		{"a group's list without a row that has gone", begin().add(wrote(a, 1, 10, 20, moved)).add(group(c, fromL1, 21, 22)), nil},
		{"a list that was cut before the row", oneWrite().add(with(group(c, fromL1, 21, 22, cell{3, 7, 0, 0}), func(o *op) { o.Flags = full; o.Cells[0] = cell{Row: 3, Grp: 3} })), nil},
		{"an answer goes back behind an absence", begin().add(wrote(a, 1, 10, 20, gone(1, w1))).add(key(b, fromL1, 30, 31)).add(key(b, fromL1, 32, 33, old)), []string{ruleMonotonic}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, v := range check(tc.s.h) {
				got = append(got, v.rule)
				if v.what == "" || v.tell() == "" {
					t.Errorf("%s says nothing", v.rule)
				}
			}
			if !slices.Equal(slices.Compact(got), tc.want) {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

// A process that was killed leaves open whether it committed; who saw the write
// settles it.
func TestCheckOfAKilledWriter(t *testing.T) {
	t.Parallel()
	killed := func(last kind, flags uint8) *story {
		s := begin().add(op{ID: id(a, 1), Inst: a, Kind: kindBegun, Start: 10 * ms})
		if last == kindCommitting {
			s.add(op{ID: id(a, 1), Inst: a, Kind: kindCommitting, Start: 10 * ms, Commit: 11 * ms, Flags: flags})
		}
		return s
	}
	probe := op{Kind: kindProbe, Start: 30 * ms, End: 31 * ms, Cells: []cell{at(1, w1)}}
	everything := func(o op) op {
		for row := range uint16(rows) {
			if row != 7 {
				o.Cells = append(o.Cells, cell{Row: row, Grp: firstGroup(row)})
			}
		}
		return o
	}
	for _, tc := range []struct {
		name string
		s    *story
		want []string
	}{
		{"nobody knows of it", killed(kindCommitting, 0).add(key(b, fromL1, 5000, 5001, at(0, 0))), nil},
		{"it was seen, and is missed", killed(kindCommitting, 0).add(everything(probe)).add(key(b, fromL1, 432, 433, at(0, 0))), []string{ruleLease}},
		{"it was seen a moment before", killed(kindCommitting, 0).add(everything(probe)).add(key(b, fromL1, 200, 201, at(0, 0))), nil},
		{"Redis had not taken its mark", killed(kindCommitting, untold).add(everything(probe)).add(key(b, fromL1, 432, 433, at(0, 0))), nil},
		{"it was seen and had not come to COMMIT", killed(kindBegun, 0).add(everything(probe)), []string{ruleUncommitted}},
		{"somebody finds its row deleted", killed(kindCommitting, 0).add(key(b, fromL1, 30, 31)), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, v := range check(tc.s.h) {
				got = append(got, v.rule)
			}
			if !slices.Equal(slices.Compact(got), tc.want) {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

// A read that overlaps the time in which older data is back may have been answered
// by it, also one that began before the loss: its first question was lost with the
// server. It binds whoever reads later all the same.
func TestCheckAllowsWhatARestoredRedisBringsBackForATime(t *testing.T) {
	t.Parallel()
	old := at(0, 0)
	lost := run.Span{From: 100 * ms, To: 500 * ms}
	for _, tc := range []struct {
		name string
		s    *story
		want []string
	}{
		{"a hit as it ends", oneWrite().add(key(a, fromL2, 500, 501, old)), nil},
		{"a hit after its end", oneWrite().add(key(a, fromL2, 501, 502, old)), []string{ruleOwn}},
		{"a hit that began before it", oneWrite().add(key(a, fromL2, 99, 120, old)), nil},
		{"a hit that ended before it", oneWrite().add(key(a, fromL2, 98, 99, old)), []string{ruleOwn}},
		{"a hit that lasted longer", oneWrite().add(key(a, fromL2, 99, 900, old)), nil},
		{"a fill meanwhile", oneWrite().add(key(a, fromFill, 200, 201, old)), []string{ruleDatabase}},

		{"an answer goes back as it ends", oneWrite().add(key(b, fromL1, 30, 31, at(1, w1))).add(key(b, fromL2, 500, 501, old)), nil},
		{"an answer goes back that began before it", oneWrite().add(key(b, fromL1, 30, 31, at(1, w1))).add(key(b, fromL2, 99, 120, old)), nil},
		{"an answer goes back before it", oneWrite().add(key(b, fromL1, 30, 31, at(1, w1))).add(key(b, fromL2, 98, 99, old)), []string{ruleMonotonic}},
		{"a session goes back in an answer that began before it", oneWrite().add(inSession(9, key(b, fromDatabase, 30, 31, at(1, w1)))).add(inSession(9, group(b, fromL2, 99, 120, old))), nil},
		{"a session goes back before it", oneWrite().add(inSession(9, key(b, fromDatabase, 30, 31, at(1, w1)))).add(inSession(9, group(b, fromL2, 98, 99, old))), []string{ruleSession}},
		{"a session goes back in the database", oneWrite().add(inSession(9, key(b, fromL1, 30, 31, at(1, w1)))).add(inSession(9, with(key(b, fromFill, 200, 201, old), func(o *op) { o.Flags = standby }))), []string{ruleSession}},
		{"what it saw meanwhile holds after it", oneWrite().add(inSession(9, key(b, fromL2, 400, 401, at(1, w1)))).add(inSession(9, group(b, fromL2, 501, 502, old))), []string{ruleLease, ruleSession}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.s.h.restored = []run.Span{lost}
			var got []string
			for _, v := range check(tc.s.h) {
				got = append(got, v.rule)
			}
			slices.Sort(got)
			slices.Sort(tc.want)
			if !slices.Equal(slices.Compact(got), tc.want) {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

func TestShortestViolationComesFirst(t *testing.T) {
	t.Parallel()
	found := check(oneWrite().add(key(a, fromL1, 300, 400, at(0, 0))).add(key(a, fromL1, 30, 40, at(0, 0))).h)
	if len(found) != 2 || found[0].length() != 30*ms || found[1].length() != 390*ms {
		t.Errorf("found %v, want that of 30 ms before that of 390 ms", found)
	}
	if text := found[0].tell(); !strings.Contains(text, "items#7 v0") || !strings.Contains(text, "items#7 v1") {
		t.Errorf("it tells %q", text)
	}
}

package cached

import (
	"slices"
	"strings"
	"testing"
)

func TestLeafHasItsVersionFromItsRoot(t *testing.T) {
	t.Parallel()
	writer := newID(255, 1<<seqBits-1) + 3 // as high as they come
	leaf := Leaf{ID: 41, Grp: 1, Token: 77<<tokenBits + int64(writer)}
	if got, want := leaf.cell(), (cell{firstLeaf + 41, 1, 77, writer}); got != want {
		t.Errorf("it is %v, want %v", got, want)
	}
}

// Every query that is asked is of one kind and group, and says nothing of rows that
// are always there.
func TestQueriesOfLeavesAreNumberedApart(t *testing.T) {
	t.Parallel()
	all := map[kind][]uint16{}
	for q := range uint16(queries) {
		want := q >= firstLeaf && q < viewRow || q == viewRow || q >= firstLeaves
		if ofLeaves(q) != want {
			t.Errorf("query %d is of leaves: %v", q, !want)
		}
		o := op{Kind: kindOf(q), Query: q}
		if want && q != viewRow {
			all[o.Kind] = append(all[o.Kind], q)
		}
		if o.Kind == kindKey {
			continue
		}
		for row := uint16(items); row < rows; row++ {
			if o.absent(row) {
				t.Fatalf("query %d says that %s is not there", q, rowName(row))
			}
		}
	}
	if len(all[kindKey]) != leaves || len(all[kindList]) != 2*groups || len(all[kindJoin]) != 0 {
		t.Errorf("%d by key, %d lists and %d joins", len(all[kindKey]), len(all[kindList]), len(all[kindJoin]))
	}
	if g := groupOf(firstShown + 7); g != 7 || firstGroup(firstLeaf+47) != 7 || firstGroup(viewRow) < 0 {
		t.Errorf("the view's query is of group %d, the leaf of %d, the view's row of %d", g, firstGroup(firstLeaf+47), firstGroup(viewRow))
	}
}

// A change of the view is a write of its row: who is served what the view showed
// before is found.
func TestCheckFindsAnOldView(t *testing.T) {
	t.Parallel()
	shown := func(version, writer uint32) cell { return cell{viewRow, firstGroup(viewRow), version, writer} }
	look := func(start int64, c cell) op {
		return op{Inst: b, Kind: kindList, Query: firstShown, From: fromL1, Start: start * ms, End: (start + 1) * ms, Cells: []cell{c}}
	}
	for _, tc := range []struct {
		name string
		at   int64
		seen cell
		want []string
	}{
		{"within the lease", 319, shown(0, 0), nil},
		{"beyond it", 321, shown(0, 0), []string{ruleLease}},
		{"the new one", 321, shown(1, w1), nil},
	} {
		var got []string
		for _, v := range check(begin().add(wrote(a, 1, 10, 20, shown(1, w1))).add(look(tc.at, tc.seen)).h) {
			got = append(got, v.rule)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: found %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestSchemasDiffer(t *testing.T) {
	t.Parallel()
	before, after := schema{}, schema{Version: 1, Cascade: true, Leaves: true}
	if a, b := before.alter(), after.alter(); !strings.Contains(a, "NO ACTION") || !strings.Contains(b, "ON UPDATE CASCADE") {
		t.Errorf("foreign keys are %q and %q", a, b)
	}
	if a, b := before.view(0), after.view(0); !strings.HasSuffix(a, "FROM stocks") || !strings.HasSuffix(b, "FROM leaves") {
		t.Errorf("views are %q and %q", a, b)
	}
}

package cached

import "fmt"

// The rows: items, which come and go and move between groups, stocks and leaves,
// which stay where they are, and what a view says of its own definition. Row numbers
// count in this order. A leaf has its version from its root, in whichever way the
// schema of the moment has it; see schema.go.
const (
	items     = 200
	stocks    = 200
	groups    = 40
	leaves    = 2 * groups
	firstLeaf = items + stocks
	viewRow   = firstLeaf + leaves
	rows      = viewRow + 1
	// listLimit cuts lists of items.
	listLimit = 4
)

func rowName(row uint16) string {
	switch {
	case row < items:
		return fmt.Sprintf("items#%d", row)
	case row < firstLeaf:
		return fmt.Sprintf("stocks#%d", row-items)
	case row < viewRow:
		return fmt.Sprintf("leaves#%d", row-firstLeaf)
	}
	return "the view"
}

// firstGroup is that of a row's first state.
func firstGroup(row uint16) int8 { return int8(row % items % groups) }

// Queries are numbered: one by key for each row but the view's, then for each group
// a list of items, a list of stocks, a join of both, a list of leaves and what the
// view shows.
const (
	firstItems  = rows
	firstStock  = rows + groups
	firstJoin   = rows + 2*groups
	firstLeaves = rows + 3*groups
	firstShown  = rows + 4*groups
	queries     = rows + 5*groups
)

func kindOf(query uint16) kind {
	switch {
	case query < firstItems:
		return kindKey
	case query < firstJoin || query >= firstLeaves:
		return kindList
	}
	return kindJoin
}

func groupOf(query uint16) int8 { return int8((query - rows) % groups) }

// absent reports whether a row that the answer does not hold was absent, so that
// it must have been deleted, or have been in another group.
func (o *op) absent(row uint16) bool {
	for _, c := range o.Cells {
		if c.Row == row {
			return false
		}
	}
	switch {
	case o.Kind == kindKey:
		return row == o.Query
	case o.Kind == kindProbe:
		return row < items
	case o.Query >= firstStock && o.Query < firstJoin, o.Query >= firstLeaves, row >= items:
		return false // what is no item is always there; a join shows the stocks of its items
	case o.has(full):
		return row < o.Cells[len(o.Cells)-1].Row
	}
	return true
}

// elsewhere reports whether a row of that group is not in the query's answer.
func (o *op) elsewhere(grp int8) bool {
	if o.Kind == kindKey || o.Kind == kindProbe {
		return grp == none
	}
	return grp != groupOf(o.Query)
}

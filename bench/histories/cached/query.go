package cached

import "fmt"

// The rows: items, which come and go and move between groups, and stocks, which
// stay where they are. Row numbers count the items first.
const (
	items  = 200
	stocks = 200
	groups = 40
	rows   = items + stocks
	// listLimit cuts lists of items.
	listLimit = 4
)

func rowName(row uint16) string {
	if row < items {
		return fmt.Sprintf("items#%d", row)
	}
	return fmt.Sprintf("stocks#%d", row-items)
}

// firstGroup is that of a row's first state.
func firstGroup(row uint16) int8 { return int8(row % items % groups) }

// Queries are numbered: one by key for each row, then for each group a list of
// items, a list of stocks and a join of both.
const (
	firstItems = rows
	firstStock = rows + groups
	firstJoin  = rows + 2*groups
	queries    = rows + 3*groups
)

func kindOf(query uint16) kind {
	switch {
	case query < firstItems:
		return kindKey
	case query < firstJoin:
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
	case o.Query >= firstStock && o.Query < firstJoin, row >= items:
		return false // stocks are always there; a join shows those of its items
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

package cachehook

import (
	"slices"

	"github.com/gorminfra/infra/internal/sqltext"
)

// upserts reports whether an INSERT … ON CONFLICT … DO UPDATE changes no other rows
// of the relation than those whose primary keys are among its values.
//
// So it is when the conflict is one of the primary key: whatever else conflicts is an
// error. Another unique index on the same columns decides as well, and under another
// collation finds other rows. A trigger may put another key into a row before it is
// tried. What assigns the key is left alone, too.
func (r *relation) upserts(u *sqltext.Upsert) bool {
	if u == nil || u.Nothing || u.Keys == nil || !r.keyed() || r.rival || r.triggers || len(u.Target) != len(r.key) {
		return false
	}
	for _, column := range r.key {
		if r.place(u.Target, column) < 0 || r.place(u.Sets, column) >= 0 {
			return false
		}
	}
	return true
}

// place returns where among names the column is, or -1.
func (r *relation) place(names []string, column keyColumn) int {
	return slices.IndexFunc(names, func(name string) bool { return r.same(name, column.name) })
}

// rowsWritten returns the primary keys of the rows that a statement writes which
// writtenByKey has found to name them.
func (r *relation) rowsWritten(text *sqltext.Statement, args []any) (keys []string, ok bool) {
	u := text.Upsert
	if u == nil {
		return r.rowsOf(text.Where, args, maxRowsWritten)
	}
	rows := len(u.Keys) / len(u.Target)
	if rows > maxRowsWritten || len(args) > 0 && ofDriver(args[0]) {
		return nil, false
	}
	keys = make([]string, rows)
	for row := range keys {
		for i, column := range r.key {
			n := u.Keys[row*len(u.Target)+r.place(u.Target, column)]
			if n >= len(args) {
				return nil, false
			}
			if keys[row], ok = r.extend(keys[row], i, args[n]); !ok {
				return nil, false
			}
		}
	}
	return keys, true
}

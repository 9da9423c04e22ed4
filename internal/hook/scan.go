package hook

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"gorm.io/gorm"
)

// isGORMs recognises GORM's own callback, in whose place another function may run:
// plainQuery in that of callbacks.Query. Another plugin's may do anything.
func isGORMs(callback, own func(*gorm.DB)) bool {
	return reflect.ValueOf(callback).Pointer() == reflect.ValueOf(own).Pointer()
}

// plainQuery does what GORM's callbacks.Query does. But a result that breaks off
// while it is scanned is read once more, as one that breaks before its first row:
// the caller has been shown nothing of it.
func (r *Record) plainQuery(db *gorm.DB) {
	r.stages.hub.texts.build(db)
	if db.Error != nil {
		return
	}
	stmt := db.Statement
	rows, err := stmt.ConnPool.QueryContext(stmt.Context, stmt.SQL.String(), stmt.Vars...)
	if err != nil {
		_ = db.AddError(err)
		return
	}
	if broken := scan(db, rows); broken != nil && !keepsRelations(stmt) {
		r.scanAgain(db, broken)
	}
	if stmt.Result != nil {
		stmt.Result.RowsAffected = db.RowsAffected
	}
}

// scan lets GORM scan rows and closes them. It returns the driver's own error,
// apart from those of what was scanned into: an EOF may as well be a decoder's.
func scan(db *gorm.DB, rows *sql.Rows) (broken error) {
	defer func() {
		err := rows.Close() // of a single row GORM does not ask for the end
		_ = db.AddError(err)
		if broken = rows.Err(); broken == nil {
			broken = err
		}
	}()
	gorm.Scan(rows, db, 0)
	return nil
}

// scanAgain scans what another attempt brings over what the one that ended with
// broken has left.
func (r *Record) scanAgain(db *gorm.DB, broken error) {
	stmt, left := db.Statement, db.RowsAffected
	rows, err := r.Again(stmt.Context, broken)
	switch {
	case r.Retries == 0:
		return
	case err != nil:
		replaceError(db, err)
		return
	}
	list := stmt.ReflectValue.Kind() == reflect.Slice || stmt.ReflectValue.Kind() == reflect.Array
	if maps, ok := stmt.Dest.(*[]map[string]any); ok {
		*maps = (*maps)[:len(*maps)-int(left)] // GORM begins the other lists anew
	}
	replaceError(db, nil)
	if scan(db, rows) == nil && db.RowsAffected == 0 && left > 0 && !list {
		replaceError(db, broken) // nothing has overwritten the row that came before
	}
}

// keepsRelations reports whether a second row scanned into the destination would
// leave a joined relation of the first in it, where it has none itself.
func keepsRelations(stmt *gorm.Statement) bool {
	return len(stmt.Joins) > 0 && stmt.ReflectValue.Kind() == reflect.Struct
}

func replaceError(db *gorm.DB, err error) {
	db.Error = nil // there was none, or there would have been no query
	if stmt := db.Statement; stmt.Result != nil {
		stmt.Result.Error = nil
	}
	_ = db.AddError(err)
}

// Again repeats a read whose rows have ended with the driver's error cause, if
// the router names a node for it: when nobody has been shown any of them, and
// where this is its second attempt. Otherwise it returns cause.
func (r *Record) Again(ctx context.Context, cause error) (*sql.Rows, error) {
	if r.Retries > 0 || !r.trying || r.Access != ReadOnly || r.Where != Pooled {
		return nil, cause
	}
	told := cause
	if r.few().cancel != nil && errors.Is(cause, context.DeadlineExceeded) && ctx.Err() == nil {
		told = fmt.Errorf("%w: %w", ErrBudget, cause)
	}
	node := r.stages.router.Retry(ctx, r, told)
	if node == nil {
		return nil, cause
	}
	r.retryOn(node, told)
	rows, err := node.target(r.prepared).QueryContext(ctx, r.SQL, r.Args...)
	if err != nil || r.rare != nil {
		r.setRare().runErr = err
	}
	return rows, err
}

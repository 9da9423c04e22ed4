package hook

import (
	"errors"

	"gorm.io/gorm"
)

// Filler writes a result into a statement's destination, in GORM's place.
type Filler interface {
	// Fill does what gorm.Scan does with the rows of the result, and returns how
	// many there were. It cannot fail and does not block.
	Fill(stmt *gorm.Statement) (rows int64)
}

// errFilled is what GORM's query callback gets in the place of rows: it then
// ends without scanning, and the terminal callback takes the error away again.
var errFilled = errors.New("hook: the destination is filled by the server")

// CanFill reports whether a [Server] may answer with [Record.FillWith], and be
// told by [Record.OnScan]: the statement is one of db.First, db.Find and their
// like, which GORM's own callback is about to scan into Statement.Dest.
func (r *Record) CanFill() bool {
	// During the building of a statement a user's code may query by its pool.
	return r.fillable && !r.forked && r.SQL == r.DB.Statement.SQL.String()
}

// FillWith makes f write the destination. Serve returns its error, with no
// rows.
func (r *Record) FillWith(f Filler) error {
	r.filler = f
	return errFilled
}

// OnScan lets f see the destination when GORM has scanned what Serve returned,
// if that succeeds: before the model's AfterFind, and before its preloads.
func (r *Record) OnScan(f func(stmt *gorm.Statement)) { r.setRare().onScan = f }

// scanned ends a Query callback as gorm.Scan would have.
func (r *Record) scanned(db *gorm.DB) {
	switch {
	case r.filler != nil:
		stmt := db.Statement
		db.Error = nil // it was, or there would have been no query
		if stmt.Result != nil {
			stmt.Result.Error = nil
		}
		db.RowsAffected = r.filler.Fill(stmt)
		if db.RowsAffected == 0 && stmt.RaiseErrorOnNotFound {
			_ = db.AddError(gorm.ErrRecordNotFound)
		}
		if stmt.Result != nil {
			stmt.Result.RowsAffected = db.RowsAffected
		}
	case r.few().onScan != nil && (db.Error == nil || errors.Is(db.Error, gorm.ErrRecordNotFound)):
		r.rare.onScan(db.Statement)
	}
}

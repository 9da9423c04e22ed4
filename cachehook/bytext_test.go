package cachehook

import (
	"testing"

	"gorm.io/gorm"
)

// A transaction that is committed by its text is committed, although the pool takes it
// for open and rolls it back later.
func TestC01CommitByItsText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"COMMIT", "end", "SELECT 1; COMMIT", "COMMIT AND CHAIN", "COMMIT; BEGIN"} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, cfg Config) { commitByText(t, cfg, text) })
		})
	}
}

func commitByText(t *testing.T, cfg Config, text string) {
	db := open(t, database(t), cfg)
	ready(t, db)
	read := func(what string, want int64) {
		t.Helper()
		equal(t, what, db.price(t, 1), want)
		equal(t, what+", again", db.price(t, 1), want)
	}
	set := func(tx *gorm.DB, price int64) {
		t.Helper()
		must(t, tx.Model(&product{ID: 1}).Update("price", price).Error)
	}
	read("before", 10)
	tx := db.Begin()
	set(tx, 11)
	read("before COMMIT", 10)
	must(t, tx.Exec(text).Error)
	read("after COMMIT", 11)
	set(tx, 12)
	again := text == "COMMIT AND CHAIN" || text == "COMMIT; BEGIN"
	if again {
		read("before a second COMMIT", 11)
		_, err := tx.Statement.ConnPool.ExecContext(t.Context(), "COMMIT")
		must(t, err)
	}
	read("after a write that commits by itself", 12)
	if !again {
		_, err := tx.Statement.ConnPool.ExecContext(t.Context(), "UPDATE products SET price = 13 WHERE id = 1")
		must(t, err)
		read("and one past GORM", 13)
	}
	must(t, tx.Rollback().Error)
	equal(t, "holds left", db.cache.mirror.cell(db.table(t, "products"), true).busy.Load(), 0)
}

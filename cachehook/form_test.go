package cachehook

import (
	"testing"
)

func rowOfOneKind(t *testing.T, db *instance) int64 {
	type row struct {
		ID    int64
		Price int64
	}
	var r row
	must(t, db.Table("products").Where("id = 1").Take(&r).Error)
	return r.Price
}

func rowOfAnotherKind(t *testing.T, db *instance) string {
	type row struct {
		Name string
		ID   int64
	}
	var r row
	must(t, db.Table("products").Where("id = 1").Take(&r).Error)
	return r.Name
}

// Two types of one name read one statement: what is kept for the first does not
// answer the second, which reads the rows once and lets them be kept for both.
func TestC11TypesOfOneNameShareRows(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		for range 3 {
			equal(t, "price", rowOfOneKind(t, db), 10)
		}
		equal(t, "queries for the first type", db.seen.queries.Load(), 1)
		if typed, _ := snapshots(db.cache); typed != 1 {
			t.Fatalf("%d snapshots", typed)
		}
		for range 5 {
			equal(t, "name", rowOfAnotherKind(t, db), "p1")
			equal(t, "price", rowOfOneKind(t, db), 10)
		}
		if n := db.seen.queries.Load(); n > 2 {
			t.Errorf("%d queries for both: %+v", n, db.cache.Stats())
		}
		db.setPrice(t, 1, 77)
		equal(t, "price after a write", rowOfOneKind(t, db), 77)
	})
}

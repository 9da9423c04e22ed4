package hook_test

import (
	"runtime"
	"testing"

	"gorm.io/gorm"
)

// TestReadCostsOneAllocation wants no test beside it: what is counted are the
// allocations of the whole process.
func TestReadCostsOneAllocation(t *testing.T) {
	const n = 2000
	find := func(db *gorm.DB) float64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range n {
			var c []Company
			if err := db.Find(&c).Error; err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs-before.Mallocs) / n
	}
	bare, db := openNull(t, oneCompany), openNull(t, oneCompany)
	hub := attach(t, db)
	remove, err := hub.Register(&everyStage{hub.Primary()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	find(bare) // whatever is made at first use
	find(db)
	if above := find(db) - find(bare); above > 1.5 {
		t.Errorf("%.2f allocations above GORM alone: the record is the one there may be", above)
	}
}

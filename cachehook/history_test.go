package cachehook

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"
)

// TestHistoryNoReadIsOlderThanACommitThatHadReturned runs readers and writers on
// two instances. A row's price only grows; a read must see at least what was
// committed when it began.
func TestHistoryNoReadIsOlderThanACommitThatHadReturned(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name, Lease: RevalidateAlways}
	nodes := []*instance{open(t, dsn, cfg), open(t, dsn, cfg)}
	ready(t, nodes...)
	const rows = 3
	var committed [rows + 1]atomic.Int64
	var locks [rows + 1]sync.Mutex // one writer a row, so that its versions are in order
	for i := range committed {
		committed[i].Store(int64(i) * 10)
	}
	stop := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	var reads atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(w)))
			for time.Now().Before(stop) {
				id := 1 + r.IntN(rows)
				locks[id].Lock()
				next := committed[id].Load() + 1
				err := nodes[w%2].Transaction(func(tx *gorm.DB) error {
					if err := tx.Model(&product{ID: int64(id)}).Update("price", next).Error; err != nil {
						return err
					}
					if r.IntN(5) == 0 {
						return errRolledBack
					}
					return nil
				})
				switch {
				case err == nil:
					committed[id].Store(next)
				case !errors.Is(err, errRolledBack):
					t.Error(err)
				}
				locks[id].Unlock()
				time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond) //nolint:forbidigo // reads shall have time to hit
			}
		})
	}
	for w := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(8, uint64(w)))
			for time.Now().Before(stop) {
				id := 1 + r.IntN(rows)
				atLeast := committed[id].Load()
				var p product
				if err := nodes[w%2].First(&p, id).Error; err != nil {
					t.Error(err)
				}
				if p.Price < atLeast {
					t.Errorf("row %d: read %d, and %d was committed before", id, p.Price, atLeast)
				}
				reads.Add(1)
			}
		})
	}
	wg.Wait()
	hits := nodes[0].cache.Stats().L1Hits + nodes[1].cache.Stats().L1Hits
	if float64(hits) < 0.1*float64(reads.Load()) {
		t.Fatalf("%d hits of %d reads show nothing", hits, reads.Load())
	}
	t.Logf("%d reads, %d hits", reads.Load(), hits)
}

var errRolledBack = errors.New("rolled back")

package cachehook

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Reads that run while the last part of the plugin is closed lose nothing by it,
// and nothing of it stays.
func TestReadsGoOnWhileTheCacheIsClosed(t *testing.T) {
	dsn := database(t)
	before := goleak.IgnoreCurrent()
	for range 10 {
		db, err := gorm.Open(postgres.Open(dsn), &gorm.Config{Logger: logger.Discard})
		must(t, err)
		c := New(Config{Tables: map[string]Rule{"products": {}}, Logger: quiet})
		must(t, db.Use(c))
		var stop atomic.Bool
		var reads atomic.Int64
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for !stop.Load() {
					var p product
					if err := db.First(&p, 1).Error; err != nil {
						t.Errorf("read: %v", err)
						return
					}
					reads.Add(1)
				}
			})
		}
		eventually(t, "reads", 10*time.Second, func() bool { return reads.Load() > 200 || t.Failed() })
		must(t, c.Close())
		closed := reads.Load()
		eventually(t, "reads after Close", 10*time.Second, func() bool { return reads.Load() > closed+20 || t.Failed() })
		stop.Store(true)
		readers.Wait()
		pool, err := db.DB()
		must(t, err)
		must(t, pool.Close())
	}
	goleak.VerifyNone(t, before)
}

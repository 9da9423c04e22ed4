package cachehook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"
)

// warmUp runs the configured queries, one after the other, until WarmTimeout. A
// failing one is reported and skipped.
func (c *Cache) warmUp(db *gorm.DB) {
	defer close(c.warm)
	began := time.Now()
	if c.roster != nil {
		ctx, cancel := context.WithTimeout(c.life, min(patienceOfWarming, c.cfg.WarmTimeout))
		_ = c.await(ctx, c.roster.settled, "") // without Redis it goes on
		cancel()
	}
	ctx, cancel := context.WithTimeout(context.WithValue(c.life, patientKey{}, true), c.cfg.WarmTimeout)
	defer cancel()
	warmed, of := 0, len(c.cfg.Warm)
	for i, w := range c.cfg.Warm {
		start, kept := time.Now(), c.tallies.kept()
		err := c.runWarm(ctx, w, db)
		switch {
		case c.life.Err() != nil:
			return
		case err == nil && c.tallies.kept() == kept: // nobody else's queries were, either
			c.cfg.Logger.Warn("cachehook: warming query left nothing in the cache; Cache.Explain says why", "query", w.Name, "n", i+1, "of", of, "took", time.Since(start))
		case err == nil:
			warmed++
			c.cfg.Logger.Info("cachehook: warmed", "query", w.Name, "n", i+1, "of", of, "took", time.Since(start))
		case ctx.Err() != nil:
			c.cfg.Logger.Warn("cachehook: warming takes too long and ends here", "query", w.Name, "n", i+1, "of", of, "warmed", warmed, "took", time.Since(began), "error", err)
			return
		default:
			c.cfg.Logger.Warn("cachehook: warming query failed and is skipped", "query", w.Name, "n", i+1, "of", of, "error", err)
		}
	}
	c.cfg.Logger.Info("cachehook: warming has ended", "warmed", warmed, "of", of, "took", time.Since(began), "entries", c.memory.entries.Load())
}

var errWarmEnded = errors.New("it ended its goroutine")

// warmGrace is for a query to notice that its context is over.
const warmGrace = time.Second

// runWarm runs one query; its panic is its error. One that goes on after its
// context is left behind, and Close waits for it.
func (c *Cache) runWarm(ctx context.Context, w WarmQuery, db *gorm.DB) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	c.running.Go(func() {
		err := errWarmEnded // so it stays after a Goexit
		defer func() { done <- err }()
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		err = w.Run(db.Session(&gorm.Session{NewDB: true, Context: ctx}))
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(warmGrace)
	defer grace.Stop()
	select {
	case err := <-done:
		return err
	case <-grace.C:
		return ctx.Err()
	}
}

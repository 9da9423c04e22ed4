package cachehook

import (
	"context"
	"time"
)

// patientKey marks a context whose reads wait longer for the roster: warming is
// for nothing when its results are not kept.
type patientKey struct{}

const patienceOfWarming = 5 * time.Second

// enroll waits until the roster admits the cells: at most Config.Timeout from when
// a table was first asked for.
func (c *Cache) enroll(ctx context.Context, cells []*cell) bool {
	if c.roster.enroll(ctx, cells, c.patience(ctx)) {
		return true
	}
	c.counts.bypass(c.unadmitted())
	return false
}

// unadmitted is why the roster admits nothing: without a Redis that can be used nobody
// can be asked.
func (c *Cache) unadmitted() reason {
	if c.guard.open() || c.witness.fault() != nil {
		return reasonRedis
	}
	return reasonRoster
}

// patience is for how long a read waits for the roster.
func (c *Cache) patience(ctx context.Context) time.Duration {
	if ctx.Value(patientKey{}) != nil {
		return patienceOfWarming
	}
	return c.cfg.Timeout
}

// bumpListed gives tables new stamps that were perhaps written untold.
func (c *Cache) bumpListed(_ context.Context, tables []string) error {
	tags := make([]string, 0, 2*len(tables))
	for _, t := range tables {
		tags = append(tags, t, wholeTag(t))
	}
	cells := c.hold(tags)
	_, err := c.store.bump(context.Background(), tags, "", false)
	c.release(cells, true) // on an error nothing of them is admitted
	return err
}

package cachehook

import (
	"context"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/scope"
)

// refetch is refresh for a value by hand: load is called again in the background,
// under the stamps that the entry carries.
func refetch[T any](ctx context.Context, c *Cache, q *query, e *entry, form form, load func(context.Context) (T, error)) {
	if !c.refreshes.may(q.key, c.now()) {
		return
	}
	again, stamps := *q, e.stamps()
	name := flightName(again.key, stamps)
	f, leads := c.flights.join(name)
	if !leads {
		return
	}
	fctx, cancel := context.WithTimeout(scope.Leave(context.WithoutCancel(ctx)), c.cfg.FlightTimeout)
	closing := context.AfterFunc(c.life, cancel)
	s := standing{stamps: stamps, asked: c.now() < e.expires}
	c.flights.start(name, f, func() (l landing, after func()) {
		defer cancel()
		defer closing()
		// A panic or Goexit leaves it so.
		c.refreshes.pause(again.key, c.now()+int64(refreshPause))
		defer func() {
			if p := recover(); p != nil {
				c.cfg.Logger.Error("cachehook: the function of a Fetch panicked in the background: the old value is served as long as it may be", "panic", p)
				panic(p) // which ends the flight for all who have joined it
			}
		}()
		loaded := false
		l, after = fetchWork(fctx, c, &again, s, form, func(ctx context.Context) (T, error) {
			loaded = true
			return load(ctx)
		}, e)
		switch {
		case l.err != nil:
			c.cfg.Logger.Warn("cachehook: the function of a Fetch failed in the background: the old value is served as long as it may be", "error", l.err)
		case l.entry != nil:
			c.refreshes.pause(again.key, 0)
			if loaded || l.fromL2 { // and not by another just now
				again.tally.refreshes.Add(1)
			}
		}
		return l, after
	})
}

// staleByRules is for how long the rules of tables let a value be served beyond its
// time that depends on them: as long as the strictest says.
func (c *Cache) staleByRules(tags []string) (d time.Duration) {
	tables := 0
	for _, tag := range tags {
		name, ok := strings.CutPrefix(tag, tablePrefix)
		if !ok {
			continue
		}
		if _, bare, qualified := strings.Cut(name, "."); qualified {
			name = bare
		}
		r, _ := c.rule(name)
		if tables == 0 || r.StaleFor < d {
			d = r.StaleFor
		}
		tables++
	}
	return d
}

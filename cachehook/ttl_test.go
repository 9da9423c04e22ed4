package cachehook

import (
	"context"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

func TestRuleAndClauseStandInPlaceOfTheLevelsTTL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		rule, clause time.Duration
		lives, gone  time.Duration // a hit, and no hit, when so much time has passed
	}{
		{"of the level", 0, 0, 50 * time.Second, 61 * time.Second},
		{"longer rule", time.Hour, 0, 50 * time.Minute, 61 * time.Minute},
		{"shorter rule", time.Second, 0, 800 * time.Millisecond, 1100 * time.Millisecond},
		{"longer clause", time.Second, time.Hour, 50 * time.Minute, 61 * time.Minute},
		{"shorter clause", time.Hour, time.Second, 800 * time.Millisecond, 1100 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := open(t, database(t), Config{Tables: map[string]Rule{"products": {TTL: test.rule}}})
			var passed time.Duration
			now := db.cache.now
			db.cache.now = func() int64 { return now() + int64(passed) }
			read := func() {
				tx := db.DB
				if test.clause > 0 {
					tx = tx.Clauses(TTL(test.clause))
				}
				must(t, tx.First(&product{}, 1).Error)
			}
			read()
			passed = test.lives
			read()
			equal(t, "hits in time", db.seen.count(hook.L1), 1)
			passed = test.gone
			read()
			equal(t, "hits too late", db.seen.count(hook.L1), 1)
		})
	}
}

func TestRuleStandsInPlaceOfTheTTLInRedis(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name, Tables: map[string]Rule{"products": {TTL: time.Hour}}}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	a.price(t, 1)
	var keys []string
	eventually(t, "the fill", 5*time.Second, func() bool {
		keys = keysOf(t, rdb, "infra:"+name+":cache:e:*")
		return len(keys) == 1
	})
	ttl, err := rdb.PTTL(context.Background(), keys[0]).Result()
	must(t, err)
	if ttl < 50*time.Minute || ttl > time.Hour {
		t.Errorf("the entry lives for %v, want about an hour", ttl)
	}
	var passed time.Duration
	now := b.cache.now
	b.cache.now = func() int64 { return now() + int64(passed) }
	b.price(t, 1)
	passed = 50 * time.Minute
	b.price(t, 1)
	equal(t, "hits in memory of what was in Redis", b.seen.count(hook.L1), 1)
	equal(t, "queries", b.seen.queries.Load(), 0)
}

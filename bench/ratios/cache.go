package main

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-gorm/caches/v4"
	"github.com/redis/go-redis/v9"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
)

// cache is the time of hits, against GORM alone, Postgres, and go-gorm/caches.
func cache(ctx context.Context) (rows []row, err error) {
	cluster, err := testbed.StartCluster(ctx, testbed.ClusterConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	server, err := testbed.StartRedis(ctx, testbed.RedisConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
	defer rdb.Close()

	open := func(plugins ...gorm.Plugin) (*gorm.DB, error) {
		db, err := openReal(cluster.Primary().DSN(""))
		for _, p := range plugins {
			if err == nil {
				err = db.Use(p)
			}
		}
		return db, err
	}
	bare, err := open()
	if err != nil {
		return nil, err
	}
	defer closeDB(bare)
	if err := seed(bare); err != nil {
		return nil, err
	}
	memory := cachehook.New(cacheConfig("memory", nil))
	l1, err := open(memory)
	if err != nil {
		return nil, err
	}
	defer closeDB(l1)
	defer func() { err = errors.Join(err, memory.Close()) }()
	peer, err := open(&caches.Caches{Conf: &caches.Config{Cacher: &mapCacher{}}})
	if err != nil {
		return nil, err
	}
	defer closeDB(peer)
	dry := bare.Session(&gorm.Session{DryRun: true, Context: ctx})

	rows = append(rows,
		atMost("L1 hit, First", "GORM alone (DryRun)", measure(first(ctx, l1), first(ctx, dry)), 1.15),
		atLeast("L1 hit, First", "Postgres", measure(first(ctx, l1), first(ctx, bare)), 10),
		atLeast("L1 hit, First", "go-gorm/caches hit", measure(first(ctx, l1), first(ctx, peer)), 1),
		atMostAbove("L1 hit, Find of 100 rows", "GORM alone (DryRun)", measure(find(ctx, l1), find(ctx, dry)), 4_000),
		atMost("L1 hit, Find of 100 rows", "GORM alone and a copy of the models", measure(find(ctx, l1), copied(find(ctx, dry))), 1.15),
		atLeast("L1 hit, Find of 100 rows", "go-gorm/caches hit", measure(find(ctx, l1), find(ctx, peer)), 25),
		atLeast("L1 hit, Find of 100 rows", "Postgres", measure(find(ctx, l1), find(ctx, bare)), 40),
	)
	fetched := fetch(ctx, memory)
	rows = append(rows, atMostNanos("Fetch of a hit, 200 bytes", measure(fetched, empty), 300))
	l2, err := l2Hits(ctx, open, rdb, dry)
	if err != nil {
		return nil, err
	}
	misses, err := missCost(ctx, open, bare, server.Addr())
	if err != nil {
		return nil, err
	}
	weights, err := weight(ctx, open)
	return slices.Concat(rows, l2, misses, weights), err
}

func cacheConfig(name string, rdb redis.UniversalClient) cachehook.Config {
	return cachehook.Config{
		Name: name, Redis: rdb, Tables: map[string]cachehook.Rule{"items": {TTL: time.Hour}}, Logger: slog.New(slog.DiscardHandler),
	}
}

// l2Hits measures answers from Redis. L1 is off, so each is one pipeline; the
// peer is one pipeline of two GETs by go-redis, plus GORM alone.
func l2Hits(ctx context.Context, open func(...gorm.Plugin) (*gorm.DB, error), rdb *redis.Client, dry *gorm.DB) (rows []row, err error) {
	cfg := cacheConfig("redis", rdb)
	cfg.L1.MaxEntries = -1
	plugin := cachehook.New(cfg)
	db, err := open(plugin)
	if err != nil {
		return nil, err
	}
	defer closeDB(db)
	defer func() { err = errors.Join(err, plugin.Close()) }()
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := plugin.Ready(waiting); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name  string
		bytes int
		run   func(context.Context, *gorm.DB) func(int)
	}{
		{"L2 hit, First", 100, first},
		{"L2 hit, Find of 100 rows", 4_500, find},
	} {
		must(rdb.Set(ctx, "peer:entry", strings.Repeat("x", c.bytes), 0).Err())
		must(rdb.Set(ctx, "peer:stamp", strings.Repeat("x", 32), 0).Err())
		alone := c.run(ctx, dry)
		pipeline := func(n int) {
			for range n {
				p := rdb.Pipeline()
				p.Get(ctx, "peer:entry")
				p.MGet(ctx, "peer:stamp", "peer:stamp")
				_, err := p.Exec(ctx)
				must(err)
				alone(1)
			}
		}
		hit := c.run(ctx, db)
		hit(1)
		time.Sleep(50 * time.Millisecond) // the fill is in the background
		before := plugin.Stats().L2Hits
		p := measure(hit, pipeline)
		if plugin.Stats().L2Hits == before {
			return nil, errors.New("nothing was served from Redis")
		}
		rows = append(rows, atMost(c.name, "a pipeline of go-redis and GORM alone", p, 1.15))
	}
	return rows, nil
}

// find reads 100 rows.
func find(ctx context.Context, db *gorm.DB) func(int) {
	db = db.WithContext(ctx)
	return func(n int) {
		for range n {
			var items []item
			must(db.Find(&items).Error)
		}
	}
}

// copied is alone with a copy of 100 models after it: the least that a result costs
// which is the caller's own.
func copied(alone func(int)) func(int) {
	models := make([]item, 100)
	for i := range models {
		models[i].Name = "item"
	}
	return func(n int) {
		for range n {
			alone(1)
			made := slices.Clone(models)
			runtime.KeepAlive(&made) // so that it is made on the heap
		}
	}
}

func fetch(ctx context.Context, c *cachehook.Cache) func(int) {
	value := strings.Repeat("x", 200)
	return func(n int) {
		for range n {
			_, err := cachehook.Fetch(ctx, c, "greeting", time.Hour, nil, func(context.Context) (string, error) { return value, nil })
			must(err)
		}
	}
}

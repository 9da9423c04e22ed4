package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/resolver"
	"github.com/gorminfra/infra/slowlog"
)

// statementsPerScope is how many statements a request is taken to run.
const statementsPerScope = 10

// everything is all parts on as in production, with nothing cached.
func everything(replicas []resolver.Node) infra.Config {
	return infra.Config{
		Name:     "ratios",
		Logger:   slog.New(slog.DiscardHandler),
		Resolver: resolver.Config{Replicas: replicas, MaxLag: resolver.AnyStaleness},
		Cache:    cachehook.Config{Tables: map[string]cachehook.Rule{"others": {TTL: time.Minute}}},
		Limits:   limithook.Config{PerUser: limithook.PerMinute(1 << 30), Global: limithook.PerMinute(1 << 30)},
		SlowLog:  slowlog.Config{Explain: slowlog.Plan},
		Metrics:  metrics.Config{Registerer: prometheus.NewRegistry()},
	}
}

// overhead is what a statement pays for all parts, above bare GORM and above
// dbresolver, which does one of the things.
func overhead(ctx context.Context) (rows []row, err error) {
	bare, err := openNull()
	if err != nil {
		return nil, err
	}
	resolved, err := openNull()
	if err != nil {
		return nil, err
	}
	if err := resolved.Use(dbresolver.Register(dbresolver.Config{Replicas: []gorm.Dialector{nullDialector(), nullDialector()}})); err != nil {
		return nil, err
	}
	ours, err := openNull()
	if err != nil {
		return nil, err
	}
	plugin := infra.New(everything(nil))
	if err := ours.Use(plugin); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plugin.Close()) }()

	all, plain, routed := scoped(ctx, plugin, ours), first(ctx, bare), first(ctx, resolved)
	rows = append(rows,
		atMostAbove("everything on, First, null driver", "bare GORM", measure(all, plain), 1500),
		atMostAbove("everything on, First, null driver", "dbresolver", measure(all, routed), 1500),
	)
	onPostgres, err := overheadOnPostgres(ctx)
	return append(rows, onPostgres...), err
}

func overheadOnPostgres(ctx context.Context) (rows []row, err error) {
	cluster, err := testbed.StartCluster(ctx, testbed.ClusterConfig{Replicas: 2})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	dsn := cluster.Primary().DSN("")
	bare, err := openReal(dsn)
	if err != nil {
		return nil, err
	}
	defer closeDB(bare)
	if err := seed(bare); err != nil {
		return nil, err
	}
	if err := cluster.WaitCaughtUp(ctx); err != nil {
		return nil, err
	}
	resolved, err := openReal(dsn)
	if err != nil {
		return nil, err
	}
	defer closeDB(resolved)
	var dialectors []gorm.Dialector
	var nodes []resolver.Node
	for _, r := range cluster.Replicas() {
		dialectors = append(dialectors, postgres.Open(r.DSN("")))
		nodes = append(nodes, resolver.Node{Name: r.Name(), DSN: r.DSN("")})
	}
	if err := resolved.Use(dbresolver.Register(dbresolver.Config{Replicas: dialectors})); err != nil {
		return nil, err
	}
	// Against bare GORM both ask the primary: other servers have other speeds.
	alone, closeAlone, err := ready(ctx, dsn, everything(nil))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAlone()) }()
	spread, closeSpread, err := ready(ctx, dsn, everything(nodes))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeSpread()) }()
	return []row{
		atMost("everything on, First, Postgres", "bare GORM", measure(alone(ctx), first(ctx, bare)), 1.03),
		atMost("everything on, First, two replicas", "dbresolver over two replicas", measure(spread(ctx), first(ctx, resolved)), 1.03),
	}, nil
}

// ready opens a database with a plugin that knows its nodes, and returns the
// statement to measure.
func ready(ctx context.Context, dsn string, cfg infra.Config) (run func(context.Context) func(int), closeAll func() error, err error) {
	db, err := openReal(dsn)
	if err != nil {
		return nil, nil, err
	}
	plugin := infra.New(cfg)
	closeAll = func() error {
		err := plugin.Close()
		closeDB(db)
		return err
	}
	err = db.Use(plugin)
	if err == nil {
		waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		err = plugin.Ready(waiting)
	}
	if err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	return func(ctx context.Context) func(int) { return scoped(ctx, plugin, db) }, closeAll, nil
}

// first reads one row by key.
func first(ctx context.Context, db *gorm.DB) func(int) {
	db = db.WithContext(ctx)
	return func(n int) {
		for range n {
			var it item
			must(db.First(&it, 7).Error)
		}
	}
}

// scoped is first in scopes with a user, as requests have.
func scoped(ctx context.Context, plugin *infra.Plugin, db *gorm.DB) func(int) {
	ctx = limithook.WithUser(ctx, "ann")
	return func(n int) {
		for n > 0 {
			ctx, s := plugin.Begin(ctx, "request")
			db := db.WithContext(ctx)
			for range min(n, statementsPerScope) {
				var it item
				must(db.First(&it, 7).Error)
			}
			n -= statementsPerScope
			s.End()
		}
	}
}

func seed(db *gorm.DB) error {
	if err := db.AutoMigrate(&item{}); err != nil {
		return err
	}
	items := make([]item, 100)
	for i := range items {
		items[i] = item{Name: "an item with a name", Price: int64(100 * i), Stock: int64(i)}
	}
	return db.Create(&items).Error
}

func closeDB(db *gorm.DB) {
	if pool, err := db.DB(); err == nil {
		_ = pool.Close()
	}
}

// must ends the run: what is measured does not fail, or nothing is worth
// measuring.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

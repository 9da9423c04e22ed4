// Command replicas shows the plugin on real servers: it starts a Postgres
// primary with two streaming replicas and a Redis on loopback, runs two instances
// of a service on them, hurts a replica, and promotes one. The binaries of Postgres (14 or
// later) and Redis (7 or later) must be installed; `make setup` does it.
//
//	go run -C examples ./replicas
//
// It exits with 1 when something that it shows did not happen.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/redis/go-redis/v9"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/examples/internal/steps"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/resolver"
)

// Account is the model.
type Account struct {
	ID      uint
	Balance int64
}

const (
	accounts = 100
	maxLag   = 2 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\nreplicas:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	fmt.Println("Starting a Postgres primary, two streaming replicas and Redis …")
	cluster, err := testbed.StartCluster(ctx, testbed.ClusterConfig{Replicas: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	server, err := testbed.StartRedis(ctx, testbed.RedisConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	s := scenario{ctx: ctx, cluster: cluster}
	for _, i := range []*instance{&s.a, &s.b} {
		closeInstance, err := i.open(ctx, cluster, server)
		if err != nil {
			return err
		}
		defer closeInstance()
	}
	if err := s.seed(); err != nil {
		return err
	}
	return steps.Run(
		steps.Step{Title: "Reads go to the replicas", Run: s.spread},
		steps.Step{Title: "A write is read back at once, though a replica stands still", Run: s.readBack},
		steps.Step{Title: fmt.Sprintf("Reads move away from the replica that lags by more than %v", maxLag), Run: s.moveAway},
		steps.Step{Title: "And back, once it has caught up", Run: s.comeBack},
		steps.Step{Title: "A second instance sees the invalidation", Run: s.invalidation},
		steps.Step{Title: "The primary stops, a standby is promoted, and the writes go on", Run: s.failover},
	)
}

// instance is one process of the service: its own connections and plugin.
type instance struct {
	db     *gorm.DB
	plugin *infra.Plugin
}

func (i *instance) open(ctx context.Context, cluster *testbed.Cluster, server *testbed.Redis) (closeAll func(), err error) {
	db, err := gorm.Open(postgres.Open(cluster.Primary().DSN("")), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	plugin := infra.New(infra.Config{
		Name:  "bank",
		Redis: rdb,
		Resolver: resolver.Config{
			Replicas: []resolver.Node{
				{Name: "replica1", DSN: cluster.Replica(0).DSN("")},
				{Name: "replica2", DSN: cluster.Replica(1).DSN("")},
			},
			MaxLag: maxLag,
			Pool:   resolver.Pool{Min: 2, Max: 10},
		},
		Cache:  cachehook.Config{Tables: map[string]cachehook.Rule{"accounts": {TTL: time.Minute}}},
		Logger: slog.New(slog.DiscardHandler),
	})
	closeAll = func() {
		_ = plugin.Close()
		_ = rdb.Close()
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	}
	if err := db.Use(plugin); err != nil {
		closeAll()
		return nil, err
	}
	i.db, i.plugin = db, plugin
	ready, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := plugin.Ready(ready); err != nil {
		closeAll()
		return nil, err
	}
	return closeAll, nil
}

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/resolver"
)

// oneWay is half of the round trip that the goal of the token's cost is for.
const oneWay = 1100 * time.Microsecond

// tokenCost is what a write over a network pays for being seen by later reads.
func tokenCost(ctx context.Context) (rows []row, err error) {
	cluster, err := testbed.StartCluster(ctx, testbed.ClusterConfig{Replicas: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	far, err := testbed.StartProxy(cluster.Primary().Addr())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, far.Close()) }()
	dsn := testbed.DSN(far.Addr(), "")
	bare, err := openReal(dsn)
	if err != nil {
		return nil, err
	}
	defer closeDB(bare)
	if err := seed(bare); err != nil {
		return nil, err
	}
	ours, err := openReal(dsn)
	if err != nil {
		return nil, err
	}
	defer closeDB(ours)
	cfg := quietResolver(resolver.Node{DSN: cluster.Replica(0).DSN("")})
	cfg.Session.Key = make([]byte, 32)
	r := resolver.New(cfg)
	if err := ours.Use(r); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := onReplicas(ctx, r, ours); err != nil {
		return nil, err
	}
	far.SetDelay(oneWay)
	plain := func(n int) {
		for i := range n {
			must(bare.WithContext(ctx).Model(&item{}).Where("id = ?", 7).Update("stock", i).Error)
		}
	}
	write := func(leaves bool) func(int) {
		return func(n int) {
			for i := range n {
				ctx, s, _ := scope.Begin(ctx, "write")
				must(ours.WithContext(ctx).Model(&item{}).Where("id = ?", 7).Update("stock", i).Error)
				if leaves {
					_, err := r.Token(ctx)
					must(err)
				}
				s.End()
			}
		}
	}
	return []row{
		atMost("a write that its session sees, 2.2 ms round trip", "bare GORM", measure(write(false), plain), 1.05),
		// One sample serves all that wait for one; here there is one writer.
		atMost("the same, and its token leaves the process", "bare GORM", measure(write(true), plain), 2.05),
	}, nil
}

// queriesEach is how many queries each of the 50 clients of connects makes.
const queriesEach = 60

// connects counts the connections that 50 clients make for short queries with
// pauses.
func connects(ctx context.Context) (rows []row, err error) {
	cluster, err := testbed.StartCluster(ctx, testbed.ClusterConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	count := func(pooled bool) (int64, error) {
		proxy, err := testbed.StartProxy(cluster.Primary().Addr())
		if err != nil {
			return 0, err
		}
		defer func() { _ = proxy.Close() }()
		db, err := openReal(testbed.DSN(proxy.Addr(), ""))
		if err != nil {
			return 0, err
		}
		defer closeDB(db)
		if pooled {
			cfg := quietResolver()
			cfg.Pool = resolver.Pool{Min: 10, Max: 50} // without replicas and this the pool stays as it was made
			r := resolver.New(cfg)
			if err := db.Use(r); err != nil {
				return 0, err
			}
			defer func() { _ = r.Close() }()
		}
		if err := seed(db); err != nil {
			return 0, err
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range queriesEach {
					var it item
					must(db.WithContext(ctx).First(&it, 7).Error)
					time.Sleep(2 * time.Millisecond)
				}
			}()
		}
		wg.Wait()
		return proxy.Stats().Accepted, nil
	}
	ours, err := count(true)
	if err != nil {
		return nil, err
	}
	peer, err := count(false)
	if err != nil {
		return nil, err
	}
	fewer := 100 * (1 - float64(ours)/float64(max(peer, 1)))
	return []row{counted("fewer connects under 50 clients, Pool set", "database/sql's defaults", "%", interval{fewer, fewer, fewer}, 95, true)}, nil
}

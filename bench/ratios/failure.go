package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/resolver"
)

// hurts is how often each fault is repeated.
const hurts = 5

// site is a cluster with a resolver on it.
type site struct {
	cluster *testbed.Cluster
	db      *gorm.DB
	r       *resolver.Resolver
}

func openSite(ctx context.Context, replicas int) (s *site, closeAll func() error, err error) {
	s = &site{}
	if s.cluster, err = testbed.StartCluster(ctx, testbed.ClusterConfig{Replicas: replicas}); err != nil {
		return nil, nil, err
	}
	closeAll = func() error {
		var err error
		if s.r != nil {
			err = s.r.Close()
		}
		if s.db != nil {
			closeDB(s.db)
		}
		return errors.Join(err, s.cluster.Close())
	}
	if err := s.open(ctx); err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	return s, closeAll, nil
}

func (s *site) open(ctx context.Context) (err error) {
	if s.db, err = openReal(s.cluster.Primary().DSN("")); err != nil {
		return err
	}
	if err := seed(s.db); err != nil {
		return err
	}
	var nodes []resolver.Node
	for _, n := range s.cluster.Replicas() {
		nodes = append(nodes, resolver.Node{Name: n.Name(), DSN: n.DSN("")})
	}
	r := resolver.New(quietResolver(nodes...))
	if err := s.db.Use(r); err != nil {
		return err
	}
	s.r = r
	return onReplicas(ctx, s.r, s.db)
}

func (s *site) up(name string) bool {
	for _, n := range s.r.Nodes() {
		if n.Name == name {
			return n.Up
		}
	}
	return false
}

// readers read all the time, each read with a deadline, until stopped.
type readers struct {
	reads, failed atomic.Int64
	stop          context.CancelFunc
	wg            sync.WaitGroup
}

func (s *site) read(ctx context.Context, many int, deadline time.Duration) *readers {
	rs := &readers{}
	ctx, rs.stop = context.WithCancel(ctx)
	for range many {
		rs.wg.Add(1)
		go func() {
			defer rs.wg.Done()
			for ctx.Err() == nil {
				one, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
				var it item
				if s.db.WithContext(one).First(&it, 7).Error != nil {
					rs.failed.Add(1)
				}
				cancel()
				rs.reads.Add(1)
			}
		}()
	}
	return rs
}

func (rs *readers) end() (failed float64) {
	rs.stop()
	rs.wg.Wait()
	return float64(rs.failed.Load())
}

// failures hurts replicas under reads.
func failures(ctx context.Context) (rows []row, err error) {
	s, closeAll, err := openSite(ctx, 2)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	out := func(name string, want bool) func() bool { return func() bool { return s.up(name) == want } }

	var ejected, late, refused []float64
	for i := range hurts {
		replica := s.cluster.Replica(i % 2)
		rs := s.read(ctx, 4, 2*time.Second)
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		if err := replica.Freeze(); err != nil {
			return nil, err
		}
		err := until(ctx, "the frozen replica to be out", out(replica.Name(), false))
		ejected = append(ejected, float64(time.Since(start))/1e6)
		time.Sleep(time.Second)
		late = append(late, rs.end())
		if err := errors.Join(err, replica.Thaw(), until(ctx, "the replica to be back", out(replica.Name(), true))); err != nil {
			return nil, err
		}
	}
	for i := range hurts {
		replica := s.cluster.Replica(i % 2)
		rs := s.read(ctx, 4, 2*time.Second)
		time.Sleep(100 * time.Millisecond)
		err := replica.StopImmediate()
		time.Sleep(500 * time.Millisecond)
		refused = append(refused, rs.end())
		if err := errors.Join(err, replica.Start(ctx), until(ctx, "the replica to be back", out(replica.Name(), true))); err != nil {
			return nil, err
		}
	}
	return []row{
		counted("blackholed replica out of rotation", "-", "ms", medianOf(ejected), 800, false),
		counted("reads that missed a deadline of 2 s meanwhile", "-", "reads", medianOf(late), 0, false),
		counted("reads that a killed replica failed", "-", "reads", medianOf(refused), 0, false),
	}, nil
}

// promotions stops the primary, promotes a standby, and measures when the
// resolver knows, and when a write goes on.
func promotions(ctx context.Context) (rows []row, err error) {
	s, closeAll, err := openSite(ctx, 2)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	var noticed, written []float64
	for range hurts {
		old, next := s.cluster.Primary(), s.cluster.Replica(0)
		if err := old.StopFast(); err != nil {
			return nil, err
		}
		before := s.r.Stats().Failovers
		first := make(chan time.Time, 1)
		writing, stop := context.WithTimeout(ctx, 20*time.Second)
		go func() {
			for writing.Err() == nil {
				if s.db.WithContext(writing).Model(&item{}).Where("id = ?", 7).Update("stock", 1).Error == nil {
					first <- time.Now()
					return
				}
			}
			close(first)
		}()
		err := next.Promote(ctx)
		promoted := time.Now()
		err = errors.Join(err, until(writing, "the promotion to be noticed", func() bool { return s.r.Stats().Failovers > before }))
		noticed = append(noticed, float64(time.Since(promoted))/1e6)
		at, ok := <-first
		stop()
		if !ok {
			err = errors.Join(err, errors.New("no write came through after the promotion"))
		}
		written = append(written, max(float64(at.Sub(promoted))/1e6, 0))
		for _, r := range s.cluster.Replicas() {
			if r != old && err == nil {
				err = r.Follow(ctx, next)
			}
		}
		if err != nil {
			return nil, err
		}
		if err := old.RestartAsStandby(ctx, next); err != nil {
			return nil, fmt.Errorf("after a promotion: %w", err)
		}
		if err := until(ctx, "the old primary to serve as a replica", func() bool { return s.r.Stats().Rotation == 2 }); err != nil {
			return nil, err
		}
	}
	slowest := func(ms []float64) interval { v := medianOf(ms); v.median = v.high; return v }
	return []row{
		counted("promotion noticed, slowest", "-", "ms", slowest(noticed), 300, false),
		counted("first write after it, slowest", "-", "ms", slowest(written), 1000, false),
	}, nil
}

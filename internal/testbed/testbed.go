// Package testbed runs real servers for tests: a Postgres primary with
// streaming replicas, Redis alone, as a Cluster or under Sentinel, and a TCP
// proxy that fails on demand. Everything listens on free loopback ports, lives
// in a temporary folder and is gone after Close. Nothing needs Docker; the
// binaries of the machine are used (see [RequirePostgres] and [RequireRedis]).
//
// A test package shares one cluster and takes one database per test:
//
//	func TestMain(m *testing.M) { testbed.Main(m) }
//
//	func TestReplicaSeesRow(t *testing.T) {
//		c := testbed.SharedCluster(t)
//		db := c.NewDatabase(t)
//		primary, replica := c.Primary().DSN(db), c.Replica(0).DSN(db)
//		…
//	}
//
// A test that hurts a server must not hurt its neighbours, so it brings its
// own: [NewCluster], [NewRedis], [NewRedisCluster], [NewRedisSentinel] and
// [NewProxy] close what they start when the test ends.
//
//	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 2})
//	err := c.Replica(0).PauseReplay(ctx) // it serves old rows from here on
//
// Programs outside of tests use [StartCluster], [StartRedis],
// [StartRedisCluster], [StartRedisSentinel] and [StartProxy].
//
// The servers favour speed over durability (fsync and full_page_writes are
// off): they survive the crash of a server, not of the machine.
//
// On Linux the servers also end when the test process is killed. Folders that
// a killed process left behind are removed by the next start.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/goleak"
)

// ErrNotInstalled is wrapped by the errors of the Start functions when a
// server's binaries are not on this machine.
var ErrNotInstalled = errors.New("server is not installed")

// startLimit bounds the start of servers where the caller gives no context:
// a hundred times what a start takes on an idle machine.
const startLimit = 2 * time.Minute

// TB is the part of testing.TB in use. It is declared here so that programs
// that use this package do not link package testing.
type TB interface {
	Helper()
	Name() string
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// M is the part of testing.M in use.
type M interface{ Run() int }

// Main is the TestMain of a package that uses shared servers: it runs the
// tests, stops the shared servers, fails the run if goroutines were left
// behind, and exits the process.
func Main(m M, opts ...goleak.Option) {
	code := m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(opts...); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// RequirePostgres skips the test when Postgres (14 or later: initdb, postgres,
// pg_basebackup in one directory) is not installed. With the environment
// variable CI set it fails instead.
func RequirePostgres(tb TB) {
	tb.Helper()
	_, err := postgresBinaries()
	require(tb, err)
}

// RequireRedis is [RequirePostgres] for redis-server (7 or later).
func RequireRedis(tb TB) {
	tb.Helper()
	_, err := redisBinary()
	require(tb, err)
}

func require(tb TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		tb.Fatalf("%v (CI is set: a missing server is a failure; run make setup)", err)
	default:
		tb.Skipf("%v (run make setup)", err)
	}
}

// shared is one server of the whole test process, started by its first user.
type shared[T interface{ Close() error }] struct {
	mu    sync.Mutex // guards the fields below and makes the first start exclusive
	value T
	err   error
	done  bool
}

func (s *shared[T]) get(start func() (T, error)) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.value, s.err = start()
		s.done = true
	}
	return s.value, s.err
}

func (s *shared[T]) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done || s.err != nil {
		return nil
	}
	s.done = false
	return s.value.Close()
}

var (
	sharedCluster shared[*Cluster]
	sharedRedis   shared[*Redis]
)

func closeShared() error {
	return errors.Join(sharedCluster.close(), sharedRedis.close())
}

// SharedCluster returns the test process's own cluster, a primary and two
// replicas with the default settings; the first caller waits for its start.
// The package's TestMain must be [Main]. Tests must leave it as they found it.
func SharedCluster(tb TB) *Cluster {
	tb.Helper()
	RequirePostgres(tb)
	c, err := sharedCluster.get(func() (*Cluster, error) {
		return withLimit(StartCluster, ClusterConfig{Replicas: 2})
	})
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return c
}

// SharedRedis returns the test process's own single Redis; the first caller
// waits for its start. The package's TestMain must be [Main]. Tests keep apart
// by key prefix, and must not flush, stop or freeze it.
func SharedRedis(tb TB) *Redis {
	tb.Helper()
	RequireRedis(tb)
	r, err := sharedRedis.get(func() (*Redis, error) {
		return withLimit(StartRedis, RedisConfig{})
	})
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return r
}

// NewCluster starts a cluster for one test and closes it when the test ends.
func NewCluster(tb TB, cfg ClusterConfig) *Cluster {
	tb.Helper()
	RequirePostgres(tb)
	return start(tb, StartCluster, cfg)
}

// NewRedis starts a single Redis for one test and closes it when the test ends.
func NewRedis(tb TB, cfg RedisConfig) *Redis {
	tb.Helper()
	RequireRedis(tb)
	return start(tb, StartRedis, cfg)
}

// NewRedisCluster starts a Redis Cluster for one test and closes it when the
// test ends.
func NewRedisCluster(tb TB, cfg RedisClusterConfig) *RedisCluster {
	tb.Helper()
	RequireRedis(tb)
	return start(tb, StartRedisCluster, cfg)
}

// NewRedisSentinel starts Redis under Sentinel for one test and closes it when
// the test ends.
func NewRedisSentinel(tb TB, cfg RedisSentinelConfig) *RedisSentinel {
	tb.Helper()
	RequireRedis(tb)
	return start(tb, StartRedisSentinel, cfg)
}

// NewProxy starts a proxy for one test and closes it when the test ends.
func NewProxy(tb TB, target string) *Proxy {
	tb.Helper()
	return start(tb, func(_ context.Context, target string) (*Proxy, error) { return StartProxy(target) }, target)
}

// start runs one of the Start functions on a test's behalf.
func start[C any, T interface{ Close() error }](tb TB, f func(context.Context, C) (T, error), cfg C) T {
	tb.Helper()
	v, err := withLimit(f, cfg)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(func() {
		if err := v.Close(); err != nil {
			tb.Errorf("%v", err)
		}
	})
	return v
}

func withLimit[C, T any](f func(context.Context, C) (T, error), cfg C) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return f(ctx, cfg)
}

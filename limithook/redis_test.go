package limithook

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/redis/go-redis/v9"
)

var namespaces atomic.Int64

// client connects to the package's Redis or to another address.
func client(tb testing.TB, addr string) *redis.Client {
	tb.Helper()
	if addr == "" {
		addr = testbed.SharedRedis(tb).Addr()
	}
	c := redis.NewClient(&redis.Options{Addr: addr})
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// stores gives a configuration each store, Redis with a generous timeout and
// a namespace of the test's own.
func stores(t *testing.T) map[string]func(Config) Config {
	t.Helper()
	return map[string]func(Config) Config{
		"memory": func(c Config) Config { return c },
		"redis": func(c Config) Config {
			return onRedis(t, c)
		},
	}
}

func onRedis(tb testing.TB, c Config) Config {
	tb.Helper()
	c.Redis, c.Timeout = client(tb, ""), 5*time.Second
	c.Name = fmt.Sprint(digest(tb.Name(), 8), ".", namespaces.Add(1)) // -count runs a test again
	c.OnRedisFailure = Closed
	return c
}

package limithook

import (
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/redis/go-redis/v9"
)

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
	c.Redis, c.Name, c.Timeout = client(tb, ""), digest(tb.Name(), 8), 5*time.Second
	c.OnRedisFailure = Closed
	return c
}

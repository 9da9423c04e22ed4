package hook_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/resolver"
	"github.com/gorminfra/infra/slowlog"
)

// variant is one way to run a scenario. Its transcript must be that of bare
// GORM.
type variant struct {
	name string
	// use installs what the variant is about; nil for bare GORM.
	use func(t *testing.T, e *env)
}

// variants are all ways in which each behaviour is shown. The first one is what
// the others are compared with.
func variants() []variant {
	return []variant{
		{name: "bare"},
		{name: "hooked", use: useHooked},
		{name: "everything", use: useEverything},
	}
}

// useHooked registers a part that takes part in every stage.
func useHooked(t *testing.T, e *env) {
	hub, err := hook.Attach(e.db)
	if err != nil {
		t.Fatal(err)
	}
	p := newPart(t, e, hub)
	remove, err := hub.Register(p)
	if err != nil {
		t.Fatal(err)
	}
	e.part, e.hub, e.removePart = p, hub, remove
	t.Cleanup(remove)
}

// names sets the plugins of all scenarios apart in Redis.
var names atomic.Int64

// useEverything uses the whole plugin with all parts on.
func useEverything(t *testing.T, e *env) {
	rdb := redis.NewClient(&redis.Options{Addr: testbed.SharedRedis(t).Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	tables := []string{"companies", "users", "accounts", "pets", "toys", "languages", "user_languages", "orders", "lines", "docs_v2", "witnesses", "members"}
	rules := map[string]cachehook.Rule{}
	for _, name := range tables {
		rules[name] = cachehook.Rule{TTL: time.Minute}
	}
	replicas := make([]string, 0, 2)
	for _, n := range e.cluster.Replicas() {
		replicas = append(replicas, e.dsn(n))
	}
	plugin := infra.New(infra.Config{
		Name:        fmt.Sprintf("g%d", names.Add(1)),
		Development: true,
		Redis:       rdb,
		Resolver: resolver.Config{
			Replicas: resolver.DSNs(replicas...),
			Pool:     resolver.Pool{Min: 1, Max: 5},
			Probe:    resolver.Probe{Interval: 50 * time.Millisecond, Timeout: 5 * time.Second},
		},
		Cache:   cachehook.Config{Tables: rules, Timeout: 5 * time.Second}, // a busy machine is no broken Redis
		Limits:  limithook.Config{PerUser: limithook.PerMinute(1 << 20), Global: limithook.PerMinute(1 << 20)},
		Metrics: metrics.Config{Registerer: prometheus.NewRegistry()},
		Logger:  slog.New(slog.DiscardHandler),
		SlowLog: slowlog.Config{Threshold: time.Millisecond, Explain: slowlog.Plan},
	})
	if err := e.db.Use(plugin); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plugin.Close(); err != nil {
			t.Error(err)
		}
	})
	e.must(plugin.Ready(t.Context()))
	e.behindItsBack = func() {
		e.must(e.cluster.WaitCaughtUp(t.Context()))
		e.must(plugin.Cache().InvalidateTables(t.Context(), tables...))
	}
}

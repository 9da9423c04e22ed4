// Package infra is one GORM plugin for what a service needs between GORM and
// its databases: it routes statements over a Postgres primary and its replicas,
// serves and invalidates cached results, limits what each user may ask, finds
// N+1 queries, keeps slow statements with their plans, and exports metrics.
//
//	plugin := infra.New(infra.Config{ … })
//	if err := db.Use(plugin); err != nil { … }
//	defer plugin.Close()
//	http.ListenAndServe(":8080", plugin.Middleware(mux))
//
// Each part is a plugin of its own in a package of its own and works alone.
package infra

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/nplusone"
	"github.com/gorminfra/infra/resolver"
	"github.com/gorminfra/infra/slowlog"
)

// Plugin is all parts on one *gorm.DB. Its methods are safe for concurrent use.
type Plugin struct {
	given Config // as it came
	cfg   Config // with defaults

	resolver *resolver.Resolver
	cache    *cachehook.Cache
	limits   *limithook.Limits
	nplusone *nplusone.Detector
	slowlog  *slowlog.Log
	metrics  *metrics.Metrics

	requests atomic.Pointer[limithook.Limiter] // of HTTP requests, nil before db.Use

	mu      sync.Mutex // guards the rest
	used    bool
	closed  bool
	release []func() error // undoes Initialize, in reverse order
}

var _ gorm.Plugin = (*Plugin)(nil)

// New makes a plugin for one *gorm.DB. It starts nothing and cannot fail: faults
// of cfg are reported by db.Use. cfg is copied.
func New(cfg Config) *Plugin {
	given := cfg
	cfg = cfg.withDefaults()
	return &Plugin{
		given: given, cfg: cfg,
		resolver: resolver.New(cfg.Resolver),
		cache:    cachehook.New(cfg.Cache),
		limits:   limithook.New(cfg.Limits),
		nplusone: nplusone.New(cfg.NPlusOne),
		slowlog:  slowlog.New(cfg.SlowLog),
		metrics:  metrics.New(cfg.Metrics),
	}
}

// Name implements gorm.Plugin.
func (p *Plugin) Name() string { return "infra" }

// Initialize implements gorm.Plugin: db.Use calls it. It reports every fault of
// the configuration at once, before anything is touched. It does not wait for
// any server: a replica or a Redis that is down is met while running. See Ready.
func (p *Plugin) Initialize(db *gorm.DB) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("infra: the plugin is closed: make a new one")
	}
	if p.used {
		return errors.New("infra: the plugin already serves a *gorm.DB: a second one needs a plugin of its own, with another Name")
	}
	if err := p.given.Validate(); err != nil {
		return err
	}
	if err := p.start(db); err != nil {
		for _, part := range p.parts() {
			delete(db.Plugins, part.Name()) // so that a corrected plugin can be used
		}
		return errors.Join(err, p.stop())
	}
	p.used = true
	return nil
}

type part interface {
	gorm.Plugin
	Close() error
}

func (p *Plugin) parts() []part {
	return []part{p.resolver, p.cache, p.limits, p.nplusone, p.slowlog, p.metrics}
}

// start must be called with mu held.
func (p *Plugin) start(db *gorm.DB) error {
	requests, err := limithook.NewLimiter(p.cfg.requestLimits())
	if err != nil {
		return err
	}
	p.requests.Store(requests)
	p.release = append(p.release, requests.Close)
	for _, part := range p.parts() {
		if err := db.Use(part); err != nil {
			return fmt.Errorf("infra: use %s: %w", part.Name(), err)
		}
		p.release = append(p.release, part.Close)
	}
	hub, err := hook.Attach(db)
	if err != nil {
		return err
	}
	for _, own := range []any{totalsObserver{}, limithook.RequestMeter(requests)} {
		remove, err := hub.Register(own)
		if err != nil {
			return err
		}
		p.release = append(p.release, func() error { remove(); return nil })
	}
	return nil
}

// stop must be called with mu held.
func (p *Plugin) stop() error {
	var errs []error
	for i := len(p.release) - 1; i >= 0; i-- {
		errs = append(errs, p.release[i]())
	}
	p.release = nil
	return errors.Join(errs...)
}

// Ready waits until the plugin knows its servers: every replica probed once, the
// channel of the cache proven, the configured queries warmed. A program may run
// without waiting; reads then start on the primary. It returns what is not ready
// when ctx ends.
func (p *Plugin) Ready(ctx context.Context) error {
	return errors.Join(p.resolver.Ready(ctx), p.cache.Ready(ctx))
}

// Close stops the plugin: it gives back leases, writes what the slow log still
// holds, closes the replicas and joins every goroutine. Statements then go to
// the primary, plainly. The *gorm.DB and Config.Redis stay open; close them
// afterwards. It may be called more than once.
func (p *Plugin) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.stop()
}

// Resolver tells of the nodes and hands out connections to them.
func (p *Plugin) Resolver() *resolver.Resolver { return p.resolver }

// Cache is the query cache, for use by hand too.
func (p *Plugin) Cache() *cachehook.Cache { return p.cache }

// Limits is the limiter of statements. Its SetLimits changes the limits while the
// program runs.
func (p *Plugin) Limits() *limithook.Limiter { return p.limits.Limiter() }

// Requests is the limiter of HTTP requests, by Config.HTTP.Requests and what was
// set on it since; nil before db.Use.
func (p *Plugin) Requests() *limithook.Limiter { return p.requests.Load() }

// NPlusOne is the detector of N+1 queries.
func (p *Plugin) NPlusOne() *nplusone.Detector { return p.nplusone }

// SlowLog is the log of slow statements.
func (p *Plugin) SlowLog() *slowlog.Log { return p.slowlog }

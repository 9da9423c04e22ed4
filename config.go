package infra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"unicode"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/nplusone"
	"github.com/gorminfra/infra/resolver"
	"github.com/gorminfra/infra/slowlog"
)

// Config says what the plugin does. The zero value is safe: no replica, nothing
// cached, nothing limited, slow statements kept from 100 ms on without their
// plans, N+1 looked for inside scopes only, nothing exported. Every part has a
// field Disabled that takes it out altogether.
//
// Name, Redis, Logger and Development are handed down to each part that does
// not set its own.
type Config struct {
	// Name sets this database apart from others of the process: it is the
	// namespace of all keys in Redis and the label "db" of all metrics. All
	// instances of one service must use the same. At most 59 bytes, without
	// braces, blanks and control characters. Default "default".
	Name string
	// Development turns on what helps while programming and costs or reveals
	// too much in production: call sites, samples of parameters in findings,
	// and the debug headers of Middleware.
	Development bool
	// Redis shares cache and limits between instances. Nil: a single process,
	// all in memory. The caller owns it and closes it after the plugin.
	Redis redis.UniversalClient
	// Logger receives what the plugin has to say. Default slog.Default().
	Logger *slog.Logger

	Resolver resolver.Config
	Cache    cachehook.Config
	Limits   limithook.Config
	NPlusOne nplusone.Config
	SlowLog  slowlog.Config
	Metrics  metrics.Config
	HTTP     HTTP
}

// HTTP says what Middleware does beyond opening a scope.
type HTTP struct {
	// Requests limits requests, each user's and all together, apart from the
	// statements that they run. All but the limits and the rules themselves is
	// taken from Config.Limits. Zero: requests are not limited.
	Requests RequestLimits
	// Route names a request in reports, logs and metrics; it must have few
	// values, never the raw path. Default: the pattern that http.ServeMux
	// matched, or the method alone.
	Route func(*http.Request) string
}

// RequestLimits are limits of requests.
type RequestLimits struct {
	PerUser limithook.Limit
	Global  limithook.Limit
	// Rules are further limits. Their KeyOf, which is for statements, does not
	// apply.
	Rules []limithook.Rule
}

const (
	// requestsSuffix sets the limits of requests apart from those of statements.
	requestsSuffix = ":http"
	// maxName is the longest Config.Name in bytes; limithook takes 64.
	maxName = 64 - len(requestsSuffix)
)

// withDefaults returns a copy in which the parts have what the plugin hands
// down to them.
func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "default")
	if c.NPlusOne.Logger == nil {
		c.NPlusOne.Logger = c.Logger // nil: in development it writes to the terminal
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, name := range []*string{&c.Resolver.Name, &c.Cache.Name, &c.Limits.Name, &c.NPlusOne.Name, &c.SlowLog.Name, &c.Metrics.Name} {
		*name = cmp.Or(*name, c.Name)
	}
	for _, l := range []**slog.Logger{&c.Resolver.Logger, &c.Cache.Logger, &c.Limits.Logger, &c.SlowLog.Logger} {
		if *l == nil {
			*l = c.Logger
		}
	}
	if c.Cache.Redis == nil {
		c.Cache.Redis = c.Redis
	}
	if c.Limits.Redis == nil {
		c.Limits.Redis = c.Redis
	}
	if c.SlowLog.User == nil {
		c.SlowLog.User = func(ctx context.Context) string { id, _ := limithook.User(ctx); return id }
	}
	c.NPlusOne.Development = c.NPlusOne.Development || c.Development
	return c
}

// Validate reports every fault of the configuration at once, each with field,
// value and rule. It touches nothing; Initialize calls it first.
func (c Config) Validate() error {
	var errs []error
	if len(c.Name) > maxName || strings.ContainsFunc(c.Name, func(r rune) bool {
		return r == '{' || r == '}' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) {
		errs = append(errs, fmt.Errorf("infra: Name is %q: must be at most %d bytes without braces, blanks and control characters", c.Name, maxName))
		c.Name = "" // one fault, not one of each part
	}
	c = c.withDefaults()
	errs = append(errs,
		c.Resolver.Validate(), c.Cache.Validate(), c.Limits.Validate(),
		c.HTTP.Requests.validate(),
		c.NPlusOne.Validate(), c.SlowLog.Validate(), c.Metrics.Validate())
	return errors.Join(errs...)
}

func (r RequestLimits) validate() error {
	err := limithook.Config{PerUser: r.PerUser, Global: r.Global, Rules: r.Rules}.Validate()
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "limithook: ", "infra: HTTP.Requests."))
}

// requestLimits is the configuration of the limiter of requests.
func (c Config) requestLimits() limithook.Config {
	l := c.Limits
	l.PerUser, l.Global, l.Rules = c.HTTP.Requests.PerUser, c.HTTP.Requests.Global, c.HTTP.Requests.Rules
	l.Name += requestsSuffix
	l.Lease.For = 0 // by the windows of requests
	return l
}

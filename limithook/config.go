package limithook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/redis/go-redis/v9"
)

// Config says what is limited and where the count is kept. The zero value
// limits nothing.
type Config struct {
	// PerUser is the limit of each identity (see [WithUser]); zero: none.
	PerUser Limit
	// Global is the limit of all requests together; zero: none.
	Global Limit

	// Rules are further limits: of each tenant, route, table, …; at most 8.
	Rules []Rule
	// Shadow decides and counts as usual but refuses nobody and tells clients
	// nothing: for trying limits out. What would have been refused is told by
	// [Stats], and is not charged.
	Shadow bool

	// Redis shares the limits between processes. Nil counts in memory, for a
	// single process. The caller owns and closes it. Its clock is the one that
	// counts, whatever those of the processes say. A server that comes back
	// empty, a fail-over that loses the last writes, or a clock set forward
	// forgets admissions: up to Max more can pass in that window. One with an
	// evicting maxmemory policy can do so at any time: give the limits a
	// server of their own where that matters.
	Redis redis.UniversalClient
	// Name sets the limits of one application apart from those of another on
	// the same Redis. Default "default".
	Name string

	// Anonymous is the identity that requests without one share. Empty: they
	// are held to the global limit alone. It never meets a user of that name.
	Anonymous string

	// OnRedisFailure decides while Redis does not answer. Default [Local].
	OnRedisFailure Mode
	// Timeout bounds how long a decision may wait for Redis, whatever the
	// timeouts of the client; then OnRedisFailure applies. With a *redis.Client
	// and up to 100 ms, the end of a caller's context is noticed only when Redis
	// answers or the timeout has passed. Default 50 ms.
	Timeout time.Duration
	// Instances is the number of processes that share Redis. [Local] gives
	// each its part of the limits. Default 1: each takes the whole.
	Instances int

	// Count says which statements are charged. Default [DatabaseStatements].
	Count Counted
	// Cost is what a statement run with ctx is charged, from 1 to 10,000; one of
	// 0 or below is free. A statement that costs more than a limit admits fails
	// with [ErrCost]. It is called on the caller's goroutine and must not block.
	// Nil: each costs 1.
	Cost func(ctx context.Context, st Statement) int
	// Identity finds whom an HTTP request belongs to; empty: nobody. It is asked
	// by [Limits.Middleware], and by the one of the plugin that contains this
	// package. Nil: the application calls [WithUser] itself. Ready ones are
	// [ByHeader], [ByContext], [ByClient] and [FirstOf].
	Identity func(*http.Request) string
	// UnixReset writes the header X-RateLimit-Reset in Unix seconds instead of
	// RFC 3339.
	UnixReset bool

	// Lease lets one round trip to Redis pay for several decisions.
	Lease Lease
	// MaxKeys bounds the identities, and the keys of each rule, held in memory: about
	// 250 bytes each, and 8 per admission in the window; 360 with Redis. With Redis it
	// bounds a cache and loses nothing. Without, identities above it share one log
	// until there is room: such users may be refused early, never admitted too often.
	// Default 65,536.
	MaxKeys int

	// Logger receives the changes between Redis and OnRedisFailure. Default
	// [slog.Default].
	Logger *slog.Logger
	// Disabled admits everything and counts nothing.
	Disabled bool
}

// Limit admits at most Max in every trailing Window. The zero value means no
// limit; it is not possible to admit nothing.
type Limit struct {
	Max    int           // 1 to 2^31
	Window time.Duration // 1 ms to 366 days; a part of a microsecond counts as a whole one
	// Shards divides a very large global limit in Redis among as many keys, each
	// with its share of Max and, on a Cluster, in a slot of its own, so that not
	// one server has to count everything. A user is always counted on the same
	// shard, next to its own limit. Never more than Max are admitted together; a
	// user whose shard's share is used up is refused although others have room.
	// For Global alone and without Rules; 0 or 1: not divided; at most 64, and
	// each share at least 1.
	Shards int
}

// PerSecond limits to n a second.
func PerSecond(n int) Limit { return Per(n, time.Second) }

// PerMinute limits to n a minute.
func PerMinute(n int) Limit { return Per(n, time.Minute) }

// Per limits to n in each window of length d.
func Per(n int, d time.Duration) Limit { return Limit{Max: n, Window: d} }

// IsZero reports whether there is no limit.
func (l Limit) IsZero() bool { return l == Limit{} }

// Validate reports every fault of the limit, as one of field: Validate("shop:
// Requests") speaks of "shop: Requests.Max". The zero limit has none.
func (l Limit) Validate(field string) error {
	if l.IsZero() {
		return nil
	}
	var errs []error
	if l.Max < 1 || int64(l.Max) > maxMax {
		errs = append(errs, fmt.Errorf("%s.Max is %d: must be from 1 to 2147483648, or the whole limit zero for none", field, l.Max))
	}
	if !l.validWindow() {
		errs = append(errs, fmt.Errorf("%s.Window is %v: must be from 1ms to 8784h", field, l.Window))
	}
	if l.Shards < 0 || l.Shards > maxShares || l.Shards > max(l.Max, 0) {
		errs = append(errs, fmt.Errorf("%s.Shards is %d: must be from 0 to %d and at most Max", field, l.Shards, maxShares))
	}
	return errors.Join(errs...)
}

func (l Limit) validWindow() bool { return l.Window >= minWindow && l.Window <= maxWindow }

// String returns the limit as "100 per 1m0s".
func (l Limit) String() string {
	if l.IsZero() {
		return "none"
	}
	return fmt.Sprintf("%d per %v", l.Max, l.Window)
}

// Mode decides while Redis does not answer.
type Mode uint8

const (
	// Local counts in this process and holds it to its part of the limits:
	// Max divided by [Config.Instances], at least 1. The count starts empty,
	// so a window in which Redis is lost or comes back can see up to 2 Max.
	Local Mode = iota
	// Open admits.
	Open
	// Closed refuses, with an [Error] that matches [ErrUnavailable].
	Closed
)

func (m Mode) String() string {
	switch m {
	case Local:
		return "local"
	case Open:
		return "open"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// Counted says which statements are charged.
type Counted uint8

const (
	// DatabaseStatements charges the statements that reach a database; one
	// answered from a cache is free. Preloads and the statements of
	// associations are statements like others.
	DatabaseStatements Counted = iota
	// AllStatements charges those answered from a cache too.
	AllStatements
)

func (c Counted) String() string {
	switch c {
	case DatabaseStatements:
		return "database"
	case AllStatements:
		return "all"
	}
	return fmt.Sprintf("Counted(%d)", uint8(c))
}

// Lease lets a process draw several admissions from Redis at once and spend
// them without asking again.
//
// The limit stays exact: what is leased is charged as if it were spent at the
// last instant at which it may be, so it leaves the window up to For later
// than it would have. What is not spent by then is lost until its window has
// passed; it is given back on [Limiter.Close], which a user refused elsewhere
// meanwhile notices within a second. The size of a lease doubles
// while leases are used up, halves when one expires, never exceeds a
// sixteenth of what remains, and so is one near the limit and for limits
// below 16.
type Lease struct {
	// Max is the most that one lease holds, 1 to 65,536. 1 turns leases off.
	// Default 16.
	Max int
	// For is how long a lease can be spent, at most half of the shortest
	// window. Default a 64th of the window and at most a second. Below 5 ms,
	// which is hardly more than the round trip, there is no lease.
	For time.Duration
}

const (
	defaultTimeout = 50 * time.Millisecond
	defaultMaxKeys = 1 << 16
	defaultLease   = 16
	maxLease       = 1 << 16
	maxMax         = 1 << 31
	minWindow      = time.Millisecond
	maxWindow      = 366 * 24 * time.Hour
	maxShares      = 64
	minLeaseFor    = 5 * time.Millisecond
)

// leaseTerm is how long a lease of the limit lasts, in nanoseconds; 0: there are
// none.
func leaseTerm(l Limit, lease Lease) int64 {
	term := lease.For
	if term == 0 {
		term = min(l.Window/64, time.Second)
	}
	if lease.Max <= 1 || term < minLeaseFor {
		return 0
	}
	return int64(term)
}

// part is one instance's part of a limit: at least 1.
func part(l Limit, instances int) Limit {
	if !l.IsZero() {
		l.Max = max(1, l.Max/instances)
	}
	return l
}

// withDefaults returns a copy in which every default is spelled out.
func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "default"
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Instances == 0 {
		c.Instances = 1
	}
	if c.Lease.Max == 0 {
		c.Lease.Max = defaultLease
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = defaultMaxKeys
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Rules = slices.Clone(c.Rules)
	return c
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(field string, value any, rule string) {
		errs = append(errs, fmt.Errorf("limithook: %s is %v: %s", field, value, rule))
	}
	errs = append(errs, c.PerUser.Validate("limithook: PerUser"), c.Global.Validate("limithook: Global"))
	errs = append(errs, validateRules(c.Rules))
	if c.PerUser.Shards != 0 {
		bad("PerUser.Shards", c.PerUser.Shards, "must be 0: only Global has shards")
	}
	if c.Global.Shards > 1 && len(c.Rules) > 0 {
		bad("Global.Shards", c.Global.Shards, "must be 0 or 1 where there are Rules, which one script decides on too")
	}
	limits := []Limit{c.PerUser, c.Global}
	for _, r := range c.Rules {
		limits = append(limits, r.Rate)
	}
	shortest := time.Duration(math.MaxInt64)
	for _, l := range limits {
		if !l.IsZero() && l.validWindow() {
			shortest = min(shortest, l.Window)
		}
	}
	if len(c.Name) > maxPlainID || strings.ContainsFunc(c.Name, func(r rune) bool {
		return r == '{' || r == '}' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) {
		bad("Name", fmt.Sprintf("%q", c.Name), "must be at most 64 bytes without braces, blanks and control characters")
	}
	if c.OnRedisFailure > Closed {
		bad("OnRedisFailure", c.OnRedisFailure, "must be Local, Open or Closed")
	}
	if c.Count > AllStatements {
		bad("Count", c.Count, "must be DatabaseStatements or AllStatements")
	}
	if c.Timeout < 0 {
		bad("Timeout", c.Timeout, "must not be negative")
	}
	if c.Instances < 0 {
		bad("Instances", c.Instances, "must not be negative")
	}
	if c.MaxKeys < 0 {
		bad("MaxKeys", c.MaxKeys, "must not be negative")
	}
	if c.Lease.Max < 0 || c.Lease.Max > maxLease {
		bad("Lease.Max", c.Lease.Max, "must be from 1 to 65536, or 0 for the default of 16")
	}
	if c.Lease.For < 0 || c.Lease.For > shortest/2 {
		bad("Lease.For", c.Lease.For, "must be from 0, the default, to half of the shortest window")
	}
	return errors.Join(errs...)
}

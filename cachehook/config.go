package cachehook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/redis/go-redis/v9"
	"gorm.io/gorm"
)

// Config says what is cached, where, and for how long. The zero value caches
// nothing by itself: a query is cached when each table that it reads has a rule
// in Tables, or when it carries a [TTL] or [Tags] clause.
type Config struct {
	// Name sets the cache of one database apart from others on the same Redis.
	// All instances that use one database must use one name, and two databases
	// need two. Default "default".
	Name string
	// Redis shares results and invalidations between instances. Nil: results are
	// in this process's memory alone, and several instances do not hear of each
	// other's writes: each may serve what is as old as its TTL. The caller owns
	// and closes it. It is a [redis.Client] of one server or of Sentinel, a
	// [redis.ClusterClient], or a struct that embeds one of them. A [redis.Ring] is
	// refused: it brings old values back.
	// Twice a second INFO tells whether it is the same server: one that comes
	// back with older data has everything invalidated before more than half a
	// second has passed. A [redis.Client] with ContextTimeoutEnabled is asked on
	// the statement's own goroutine, any other on one that can be left behind at
	// the Timeout, which takes some microseconds more.
	Redis redis.UniversalClient

	// L1 is the memory of this process.
	L1 L1
	// L2 is Redis; without Redis there is none.
	L2 L2

	// NotFoundTTL is the longest that a result without rows is served, where the
	// rule of a table does not say otherwise; never longer than another result
	// would be, but for StaleFor, which comes on top. Default 10 s; negative: it is not cached.
	NotFoundTTL time.Duration
	// EarlyRefresh reads results in daily use anew shortly before their TTL ends,
	// in the background, so that nobody waits for them: each hit does so with the
	// probability of [XFetch], which grows towards the end and with the time that
	// the query took, times this factor. 1 is the usual one, larger is earlier;
	// zero or negative: off. One refresh of a result is under way in an instance.
	// It holds of [Fetch] too, whose function then also runs in the background.
	//
	// [XFetch]: https://www.vldb.org/pvldb/vol8/p886-vattani.pdf
	EarlyRefresh float64

	// Lease is how long what this process knows of the tags counts after Redis
	// last proved that it would have told of a change: the time by which
	// another instance's write may show late. Default 500 ms;
	// [RevalidateAlways]: not late at all, at the cost of one round trip to
	// Redis for each hit.
	Lease time.Duration

	// Tables are the rules, by table name without its schema.
	Tables map[string]Rule
	// Affects declares what the database does behind a write: a trigger on
	// "orders" that also changes "totals" is {"orders": {"totals"}}. A write of
	// a table that has triggers and is not declared here invalidates
	// everything; declare it with no tables when its triggers change only the
	// row itself, and with itself when they change other rows of it. Foreign tables
	// whose rows are those of a table of this database can be declared too.
	Affects map[string][]string

	// Tenant tells for whom a statement, or a value by hand, is: its key is part
	// of every entry's key, so that no two tenants share one, and statements on
	// tables under row-level security are cached where it is not empty. [WithTenant]
	// goes before it and says what is promised by it. It is called for each look-up
	// on the caller's goroutine, must be quick and safe for concurrent use, and
	// reports false where there is no tenant. Nil: there is none but by
	// WithTenant.
	//
	// Sessions have to follow the same function, by the context of each statement
	// and whatever connection it gets: see [SessionTenant].
	Tenant func(ctx context.Context) (key string, ok bool)

	// Functions declares functions of the database's own by what they read: a
	// function stock(products) that looks into "inventory" is {"stock":
	// {"inventory"}}. The name may lead with its schema. Without it no statement
	// is cached that calls a function which the catalogue does not call immutable,
	// be it by name, as a column of a row ("products.stock"), by an operator
	// or by a cast. Where an operator or a cast calls it, the function is declared.
	// The same holds of functions that policies of row-level security call: one that
	// only asks who asks is {"current_tenant": {}}, and then statements that call
	// it by themselves take a tenant too.
	Functions map[string][]string

	// Warm are queries that are run at start, one after the other.
	Warm []WarmQuery
	// WarmTimeout bounds all of them together: what has not run by then is
	// reported and left out. Default 1 minute.
	WarmTimeout time.Duration

	// OnRedisFailure decides about a write whose invalidation Redis does not
	// take. Default [CommitAndQuarantine].
	OnRedisFailure FailurePolicy
	// Timeout bounds what one call of Redis may take, whatever the client's own
	// timeouts. Default 50 ms.
	Timeout time.Duration
	// FlightTimeout bounds the query that runs for all who miss the same entry
	// at once. Past it each runs its own. Default 30 s.
	FlightTimeout time.Duration
	// MaxResult bounds a stored result, in bytes as a payload has them. Default
	// 1 MiB.
	MaxResult int

	// Logger receives what an operator should know. Default [slog.Default].
	Logger *slog.Logger
	// Disabled caches nothing and invalidates nothing. All instances that share
	// a database have to agree.
	Disabled bool
}

// L1 bounds the first level, in memory.
type L1 struct {
	// MaxEntries is the most results held. Default 1000; negative: none.
	MaxEntries int
	// MaxBytes is the most memory held, estimated. Default 10 MiB.
	MaxBytes int64
	// TTL is the longest that a result is served from memory, where neither the
	// rule of a table nor a [TTL] clause says otherwise. Default 1 minute.
	TTL time.Duration
}

// L2 bounds the second level, in Redis.
type L2 struct {
	// TTL is the longest that a result is kept in Redis, where neither the rule
	// of a table nor a [TTL] clause says otherwise. Default 5 minutes.
	TTL time.Duration
	// CompressAbove is the size in bytes above which a result is compressed in
	// Redis, with DEFLATE, where that saves at least an eighth. Default 32 KiB;
	// negative: none is. All instances read both forms.
	CompressAbove int
}

// Rule makes the queries of a table cached.
type Rule struct {
	// TTL is the longest that a result is served, from either level and in the
	// place of L1.TTL and L2.TTL, be it shorter or longer: without a write of
	// its tables a result with a TTL of an hour is served for up to an hour.
	// Zero: as long as the levels say. A query of several tables gets the
	// shortest that a rule names.
	TTL time.Duration
	// NotFoundTTL stands in the place of Config.NotFoundTTL for queries of the
	// table; the shortest that a rule names.
	NotFoundTTL time.Duration
	// StaleFor lets a result whose TTL has ended be served for so much longer
	// while it is read anew in the background, so that nobody waits. Never one
	// from before a write, and never beyond TTL and StaleFor together. Zero: not
	// at all. A query of several tables gets the shortest of their rules' times,
	// which is not at all where one does not allow it. It holds of [Fetch] too.
	StaleFor time.Duration
	// Shared gives all tenants one result: the table shows the same rows to
	// each, as a list of countries does. It counts for queries whose tables all
	// are shared, and never for one that reads under row-level security.
	Shared bool
}

// RevalidateAlways is the Lease of a cache that asks Redis at each hit.
const RevalidateAlways time.Duration = -1

// FailurePolicy decides about a write that Redis could not be told of.
type FailurePolicy uint8

const (
	// CommitAndQuarantine lets the write go on. This process serves nothing of
	// the tables until Redis has been told; others may be stale for as long as
	// their results' TTL.
	CommitAndQuarantine FailurePolicy = iota
	// FailWrite fails the write before it commits, with [ErrInvalidation]. While Redis
	// is down for longer than a second that is every write through the plugin: which
	// tables are cached is known from Redis alone.
	FailWrite
)

func (p FailurePolicy) String() string {
	switch p {
	case CommitAndQuarantine:
		return "CommitAndQuarantine"
	case FailWrite:
		return "FailWrite"
	}
	return fmt.Sprintf("FailurePolicy(%d)", uint8(p))
}

// ErrInvalidation is the error of a write that was rolled back, or of an
// [Cache.Invalidate], because Redis could not be told of it.
var ErrInvalidation = errors.New("cachehook: Redis did not take the invalidation")

// WarmQuery is a query that is run once at start, so that its result is cached
// before the first user asks for it.
type WarmQuery struct {
	// Name is for the log.
	Name string
	// Run runs the query on db, whose context ends with WarmTimeout or Close. Its
	// error or panic is reported and the next one runs.
	Run func(db *gorm.DB) error
}

const (
	minTTL  = time.Millisecond
	maxTTL  = 30 * 24 * time.Hour
	markTTL = 5 * time.Second // how long a writer that died keeps its tags from being cached
)

// longestTTL is the longest of the configuration.
func (c Config) longestTTL() time.Duration {
	longest := c.L1.TTL
	if c.Redis != nil {
		longest = max(longest, c.L2.TTL)
	}
	levels := longest
	for _, r := range c.Tables {
		longest = max(longest, cmp.Or(r.TTL, levels)+r.StaleFor)
	}
	return longest
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "default")
	c.L1.MaxEntries = cmp.Or(c.L1.MaxEntries, 1000)
	c.L1.MaxBytes = cmp.Or(c.L1.MaxBytes, 10<<20)
	c.L1.TTL = cmp.Or(c.L1.TTL, time.Minute)
	c.L2.TTL = cmp.Or(c.L2.TTL, 5*time.Minute)
	c.L2.CompressAbove = cmp.Or(c.L2.CompressAbove, 32<<10)
	c.WarmTimeout = cmp.Or(c.WarmTimeout, time.Minute)
	c.NotFoundTTL = cmp.Or(c.NotFoundTTL, 10*time.Second)
	c.Lease = cmp.Or(c.Lease, 500*time.Millisecond)
	c.Timeout = cmp.Or(c.Timeout, 50*time.Millisecond)
	c.FlightTimeout = cmp.Or(c.FlightTimeout, 30*time.Second)
	c.MaxResult = cmp.Or(c.MaxResult, 1<<20)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(field string, value any, rule string) {
		errs = append(errs, fmt.Errorf("cachehook: %s is %v: %s", field, value, rule))
	}
	ttl := func(field string, d time.Duration) {
		if d < minTTL || d > maxTTL {
			bad(field, d, fmt.Sprintf("must be from %v to %v", minTTL, maxTTL))
		}
	}
	if strings.ContainsFunc(c.Name, func(r rune) bool { return !unicode.IsGraphic(r) || r == '{' || r == '}' || r == ' ' }) {
		bad("Name", fmt.Sprintf("%q", c.Name), "must have no blanks, braces or control characters")
	}
	if value, rule := misfit(c.Redis); rule != "" {
		bad("Redis", value, rule)
	}
	if c.L1.MaxBytes < 0 {
		bad("L1.MaxBytes", c.L1.MaxBytes, "must not be negative")
	}
	ttl("L1.TTL", c.L1.TTL)
	ttl("L2.TTL", c.L2.TTL)
	if c.NotFoundTTL > 0 {
		ttl("NotFoundTTL", c.NotFoundTTL)
	}
	if c.EarlyRefresh > 100 || math.IsNaN(c.EarlyRefresh) {
		bad("EarlyRefresh", c.EarlyRefresh, "must be at most 100")
	}
	if c.Lease != RevalidateAlways && (c.Lease < 20*time.Millisecond || c.Lease > time.Minute) {
		bad("Lease", c.Lease, "must be RevalidateAlways or from 20ms to 1m0s")
	}
	for name, r := range c.Tables {
		if name == "" || strings.ContainsAny(name, `."`) {
			errs = append(errs, fmt.Errorf("cachehook: Tables[%q]: the key must be a table's name without its schema and quotes", name))
		}
		if r.TTL != 0 {
			ttl(fmt.Sprintf("Tables[%q].TTL", name), r.TTL)
		}
		if r.NotFoundTTL > 0 {
			ttl(fmt.Sprintf("Tables[%q].NotFoundTTL", name), r.NotFoundTTL)
		}
		if r.StaleFor < 0 || r.StaleFor > maxTTL {
			bad(fmt.Sprintf("Tables[%q].StaleFor", name), r.StaleFor, fmt.Sprintf("must be from 0 to %v", maxTTL))
		}
	}
	errs = append(errs, checkEdges("Affects", c.Affects, `."`, "the key must be a table's name without its schema and quotes")...)
	errs = append(errs, checkEdges("Functions", c.Functions, `"()`, "the key must be a function's name without quotes and arguments")...)
	for i, w := range c.Warm {
		if w.Run == nil {
			bad(fmt.Sprintf("Warm[%d].Run", i), "nil", "must be a function")
		}
	}
	if c.WarmTimeout < time.Millisecond {
		bad("WarmTimeout", c.WarmTimeout, "must be at least 1ms")
	}
	if c.OnRedisFailure > FailWrite {
		bad("OnRedisFailure", c.OnRedisFailure, "must be CommitAndQuarantine or FailWrite")
	}
	if c.Timeout < time.Millisecond || c.Timeout > 10*time.Second {
		bad("Timeout", c.Timeout, "must be from 1ms to 10s")
	}
	if c.FlightTimeout < 10*time.Millisecond {
		bad("FlightTimeout", c.FlightTimeout, "must be at least 10ms")
	}
	if c.MaxResult < 0 {
		bad("MaxResult", c.MaxResult, "must not be negative")
	}
	return errors.Join(errs...)
}

// checkEdges finds names in a declaration that no table or function can have, as they are
// compared: such a one would be ignored, and with it what it was to declare.
func checkEdges(field string, declared map[string][]string, never, rule string) (errs []error) {
	for name, tables := range declared {
		if name == "" || strings.ContainsAny(name, never) {
			errs = append(errs, fmt.Errorf("cachehook: %s[%q]: %s", field, name, rule))
		}
		for i, t := range tables {
			if t == "" || strings.Contains(t, `"`) {
				errs = append(errs, fmt.Errorf("cachehook: %s[%q][%d] is %q: must be a table's name without quotes", field, name, i, t))
			}
		}
	}
	return errs
}

// Package cachehook serves the results of queries from memory (L1) and from
// Redis (L2), and never serves one from before a write that has returned.
//
//	cache := cachehook.New(cachehook.Config{
//		Redis:  rdb,
//		Tables: map[string]cachehook.Rule{"products": {TTL: time.Minute}},
//	})
//	if err := db.Use(cache); err != nil { … }
//	defer cache.Close()
//	db.First(&p, 42)                                          // cached by its table's rule
//	db.Clauses(cachehook.TTL(time.Second)).Find(&orders)      // cached on request
//
// A result depends on tags: the tables that were read, and the caller's own. A
// tag has a random stamp. A result carries the stamps from before the database
// was asked, and is served while they are the present ones. A write marks its
// tags before COMMIT, so that nothing is served or filled meanwhile, and gives
// them new stamps afterwards; if the process dies in between, the mark runs out
// and the next reader gives the new stamps.
//
// Only statements outside transactions on the plugin's own pool are served:
// inside a transaction, and on a connection of db.Connection, everything comes
// from the database. So do volatile and locking statements, system and temporary
// tables, tables that the database's catalogue does not know, and tables under
// row-level security, unless a tenant is declared: see [WithTenant].
//
// The end of a transaction is seen where GORM or the plugin's pool begins it, also
// one by the text COMMIT.
// While one is open that was begun otherwise, nothing is served or filled of the
// tables written in it: a *sql.Tx (db.Connection with Begin makes one) tells when
// it is over; a BEGIN by hand on a connection of db.Connection is waited for until
// its COMMIT or ROLLBACK by hand, at most a minute; of others, five seconds from
// each write. One that commits later, one whose COMMIT itself takes more than a
// second, and what bypasses the plugin altogether, want [Cache.InvalidateTables]
// afterwards; without it a result from before can be served up to its TTL.
//
// A SET outside transactions stays with a connection of the pool. After one that
// is not known to be harmless, tables whose name is in several schemas are cached
// only where statements name the schema, and tables under row-level security not
// at all; after a change of role this process caches no result any more. Use SET
// LOCAL.
//
// A Redis that comes back with older data, from a snapshot or as a replica that
// lagged, has all that it holds invalidated: its results may be stale for at most
// Lease and one second after its return.
package cachehook

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// Cache is a cache of query results, and a plain cache on the same tags. It is a
// gorm.Plugin; make it with [New]. All its methods are safe for concurrent use.
type Cache struct {
	cfg   Config
	fault error // of the configuration
	now   clock

	mirror  *mirror
	memory  *memory
	store   store // nil without Redis
	guard   *guard
	channel *channel // nil without Redis, or when each hit asks
	witness *witness // nil without Redis
	roster  *roster  // nil without Redis
	names   *rosterStore
	flights flights
	batches batches
	plans   plans

	refreshes refreshes

	catalog librarian
	floors  positions
	pending quarantine
	doubts  doubts
	recent  recent                    // what this process has bumped
	heardOf recent                    // of what the channel has told
	whole   atomic.Pointer[time.Time] // since when it has told all; nil: not yet
	salt    string
	markTTL time.Duration
	quick   uint32      // up to how many microseconds a flight is on the spot
	off     safeguards  // switched off, in tests
	varies  atomic.Bool // sessions have settings of their own
	roles   atomic.Bool // sessions have roles of their own
	// sessions grows when one of them begins: what was under way is not kept.
	sessions atomic.Uint32
	counts   counters
	tallies  tallies
	alone    sync.Once // the log has said that there is no Redis
	emptied  emptied
	blind    atomic.Uint32 // what the log has said of a catalogue that cannot be read

	every, schema *cell   // the tags that every query depends on
	server        []*cell // the one that a value by hand without tags depends on

	hub     atomic.Pointer[hook.Hub]
	remove  func()
	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup // what Initialize started
	warm    chan struct{}  // closed when warming has ended

	startWarming atomic.Pointer[func()] // nil when there is nothing to start

	paused atomic.Bool
	closed atomic.Bool
	once   sync.Once
	ended  chan struct{}
	mu     sync.Mutex // guards the rest but for rulesChecked, and Close against Initialize
	used   bool

	rulesChecked atomic.Bool
	warnedOf     []string // tables that the database does not have, behind the field that names them
}

// New makes a cache. It starts nothing and cannot fail: faults of the
// configuration are reported by db.Use.
func New(cfg Config) *Cache {
	c := &Cache{fault: cfg.Validate(), now: newClock(), warm: make(chan struct{}), ended: make(chan struct{}), refreshes: refreshes{seed: maphash.MakeSeed()}, salt: mint().String(), off: safeguardsOff()}
	c.cfg = cfg.withDefaults()
	c.cfg.Logger = c.cfg.Logger.With("db", c.cfg.Name)
	c.cfg.Tables, c.cfg.Affects, c.cfg.Functions = foldRules(cfg.Tables), foldEdges(cfg.Affects), foldEdges(cfg.Functions)
	c.markTTL, c.quick = markTTL, quickMicroseconds
	c.life, c.end = context.WithCancel(context.Background())
	c.catalog.life = c.life
	c.mirror = newMirror(c.cfg.Redis == nil)
	c.every, c.schema = c.mirror.cell(everyTag, true), c.mirror.cell(schemaTag, true)
	c.server = []*cell{c.mirror.cell(serverTag, true)}
	c.memory = newMemory(c.cfg.L1.MaxEntries, c.cfg.L1.MaxBytes)
	c.memory.weigh = c.tallies.weigh
	c.guard = newGuard(c.cfg.Timeout, c.cfg.Logger)
	c.catalog.now, c.catalog.read = c.now, c.readCatalog
	c.catalog.fail = c.catalogFailed
	c.floors.find = c.positioner
	if c.cfg.Redis != nil && c.fault == nil {
		c.connect()
	}
	return c
}

// connect makes what speaks to Redis; nothing is sent yet.
func (c *Cache) connect() {
	prefix := "infra:" + c.cfg.Name + ":cache:"
	r := newRedisStore(c.cfg.Redis)
	r.guard, r.prefix, r.markTTL = c.guard, prefix, c.markTTL
	r.tagTTL = max(24*time.Hour, 4*c.cfg.longestTTL()) // an entry that outlives its tag is a miss
	c.store = r
	if single, ok := c.cfg.Redis.(singleClient); ok {
		c.guard.dial = dialOnce(single.Options())
	}
	c.witness = newWitness(c.cfg.Redis, prefix+"server", c.cfg.Logger)
	c.witness.changed, c.witness.missed = c.serverChanged, c.serverMissed
	c.witness.continued, c.witness.roster = c.serverContinued, c.rosterAt
	r.recent, r.unfit = &c.recent, c.witness.fault
	c.guard.doubt = c.witness.doubt
	names := &rosterStore{
		client: c.cfg.Redis, key: prefix + "tables", instance: c.salt,
		settle: rosterSettle, lost: c.markTTL + rosterSettle - rosterLease, stay: c.markTTL, keep: r.tagTTL,
	}
	c.names = names
	c.roster = newRoster(c.now)
	c.roster.leave = names.leave
	c.roster.ask = func(ctx context.Context, q rosterQuestion) (rosterAnswer, error) {
		a, err := names.ask(ctx, q)
		if err != nil && ctx.Err() == nil {
			c.guard.said(err)
			c.guard.failed(err) // nothing is looked up meanwhile that could say so
		}
		return a, err
	}
	c.roster.schema.present, c.roster.schema.drop = c.catalog.present.Load, c.catalog.drop
	c.catalog.kept = c.roster.kick
	c.roster.bump = c.bumpListed
	c.roster.cellOf = func(tag string) *cell { return c.mirror.cell(tag, true) }
	// Also an instance that asks at each hit tells those that do not.
	name, open := prefix+"tags", oneServer(c.cfg.Redis, prefix+"tags", prefix+"ping:"+c.salt)
	if cluster, ok := c.cfg.Redis.(clusterClient); ok {
		r.shard = newShard(cluster, prefix, c.cfg.Name, c.salt, c.cfg.Timeout, c.cfg.Logger)
		r.shard.guard.doubt = c.witness.doubt
		name, open = r.shard.channel, r.shard.open
		names.tell = func(ctx context.Context) { _ = r.shard.say(ctx, rosterTag) }
	} else {
		r.channel = name
		names.tell = func(ctx context.Context) { _ = c.cfg.Redis.Publish(ctx, name, rosterTag).Err() }
	}
	if c.cfg.Lease == RevalidateAlways {
		return
	}
	c.channel = &channel{
		name: name, open: open, lease: c.cfg.Lease, now: c.now, logger: c.cfg.Logger,
		confirmed: func() {
			now := time.Now()
			c.whole.Store(&now)
			c.mirror.flush()
			c.catalog.forget() // somebody may have changed the schema meanwhile
		},
		heard:  c.heard,
		lost:   c.witness.doubt,
		proven: make(chan struct{}), hurry: make(chan struct{}, 1),
	}
}

// heard takes a message: the tag's stamp is unknown now.
func (c *Cache) heard(tag string) {
	if tag == rosterTag {
		c.roster.kick()
		return
	}
	c.mirror.forgetTag(tag)
	if r, ok := c.store.(*redisStore); ok && r.shard != nil {
		c.heardOf.note(time.Now(), tag)
	}
	if tag == schemaTag {
		c.catalog.forget()
	}
}

// trusted reports whether what the mirror knows counts.
func (c *Cache) trusted() bool {
	return c.mirror.local || c.channel != nil && (c.channel.healthy() || c.off&channelSafeguard != 0)
}

// Ready waits until the channel to Redis has proven itself, the instances agree
// about what is cached, and warming has ended, or ctx ends. A cache whose Redis is
// down is never ready, and works: do not make a service wait for it without a deadline.
// The error says what is missing, and what Redis said last; a Redis that cannot be used
// for this is told at once.
func (c *Cache) Ready(ctx context.Context) error {
	if start := c.startWarming.Load(); start != nil {
		(*start)()
	}
	if c.witness != nil && !c.cfg.Disabled {
		if err := c.await(ctx, c.witness.known, "Redis has not been seen"); err != nil {
			return err
		}
		if err := c.witness.fault(); err != nil {
			return fmt.Errorf("cachehook: Redis cannot be used: %w", err)
		}
	}
	if c.channel != nil {
		if err := c.await(ctx, c.channel.proven, "the channel to Redis has not proven itself"); err != nil {
			return err
		}
	}
	if c.roster != nil && !c.cfg.Disabled {
		if err := c.await(ctx, c.roster.settled, "what other instances cache is not known"); err != nil {
			return err
		}
	}
	return c.await(ctx, c.warm, "warming has not ended")
}

func (c *Cache) await(ctx context.Context, done <-chan struct{}, missing string) error {
	select {
	case <-done:
		return nil
	case <-c.life.Done():
		return errors.New("cachehook: closed")
	case <-ctx.Done():
		return c.guard.because(fmt.Errorf("cachehook: %s: %w", missing, ctx.Err()))
	}
}

// Close ends the cache: statements go on uncached. It waits for everything that
// the cache started, at most for the timeouts of the Redis client, and leaves
// the client open. Writes after Close invalidate nothing, so close the cache
// with the program's last write or after it.
func (c *Cache) Close() error {
	c.once.Do(func() {
		c.closed.Store(true)
		c.end()
		c.mu.Lock()
		remove := c.remove
		c.used = true // too late to be used
		c.mu.Unlock()
		if remove != nil {
			remove()
		}
		c.flights.stop()
		c.floors.stop()
		c.catalog.stop()
		c.running.Wait()
		c.doubts.stop()
		if n := c.pending.len(); n > 0 {
			c.cfg.Logger.Warn("cachehook: closed before Redis was told of all writes; other instances may serve old results until their TTL", "tags", n)
		}
		for _, g := range c.guards() {
			g.stop()
		}
		c.memory.clear()
		close(c.ended)
	})
	<-c.ended
	return nil
}

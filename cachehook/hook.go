package cachehook

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

var _ gorm.Plugin = (*Cache)(nil)

// Name implements gorm.Plugin.
func (c *Cache) Name() string { return "infra:cache" }

// Initialize implements gorm.Plugin: it checks the configuration, then takes its
// place among the statements of db and starts the channel to Redis. It does not
// wait for it; see [Cache.Ready]. Warming starts with Ready, or with the first
// statement that the cache may serve: while plugins are added GORM must not be
// used.
func (c *Cache) Initialize(db *gorm.DB) error {
	if c.fault != nil {
		return c.fault
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used {
		return errors.New("cachehook: the cache is closed or serves another *gorm.DB: make one for each")
	}
	if c.cfg.Disabled {
		c.used = true
		close(c.warm)
		if c.channel != nil {
			close(c.channel.proven)
		}
		return nil
	}
	hub, err := hook.Attach(db)
	if err != nil {
		return err
	}
	remove, err := hub.Register(part{c})
	if err != nil {
		return err
	}
	c.used, c.remove = true, remove
	c.hub.Store(hub)
	c.startRedis()
	if len(c.cfg.Warm) == 0 {
		close(c.warm)
		return nil
	}
	start := sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed.Load() {
			c.running.Go(func() { c.warmUp(hub.DB()) })
		}
	})
	c.startWarming.Store(&start)
	return nil
}

func (c *Cache) startRedis() {
	if c.cfg.Redis == nil {
		if len(c.cfg.Tables) > 0 {
			c.sayAlone()
		}
		return
	}
	c.running.Go(func() { c.retryLoop(c.life) })
	c.running.Go(func() { c.witness.run(c.life) })
	c.running.Go(func() { c.roster.run(c.life) })
	if c.channel != nil {
		c.running.Go(func() { c.channel.run(c.life) })
	}
}

// sayAlone tells what it means to have no Redis, when something is cached.
func (c *Cache) sayAlone() {
	c.alone.Do(func() {
		c.cfg.Logger.Info("cachehook: no Redis: results are cached in this process; with several instances each may serve what is as old as its TTL", "ttl", c.cfg.longestTTL())
	})
}

// part is what the hook layer sees of a Cache.
type part struct{ c *Cache }

var (
	_ hook.Server      = part{}
	_ hook.TxnObserver = part{}
	_ hook.Gate        = part{}
	_ hook.Meter       = part{}
)

// Serves implements hook.Server.
func (p part) Serves(r *hook.Record) bool {
	switch p.c.unasked(r) {
	case "":
	case ReasonRule:
		p.c.checkRules()
		return false
	default:
		return false
	}
	if start := p.c.startWarming.Load(); start != nil {
		p.c.startWarming.Store(nil)
		(*start)()
	}
	return true
}

// unasked says why the cache has no business with a statement, or "". Other than
// Serves it changes nothing.
func (c *Cache) unasked(r *hook.Record) Reason {
	switch {
	case c.closed.Load():
		return ReasonClosed
	case c.paused.Load():
		return ReasonPaused
	case r.Access != hook.ReadOnly || !r.Text.CacheableIf(anyFunction):
		return ReasonStatement
	case c.roles.Load():
		return ReasonSession
	}
	o, given := optionOf(r.DB.Statement)
	if !given {
		if _, ok := c.ruleOf(r.Text); !ok {
			return ReasonRule
		}
	}
	// A statement that names its node wants that node's answer.
	if h := r.Hint(); h.Write || h.Use != "" {
		return ReasonNode
	}
	if skipped(r.Context) || o.ttl != nil && *o.ttl < 0 {
		return ReasonSkip
	}
	return ""
}

// Serve implements hook.Server.
func (p part) Serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	return p.c.serve(ctx, r)
}

// Begin implements hook.TxnObserver.
func (p part) Begin(*hook.Txn) {}

// BeforeCommit implements hook.TxnObserver.
func (p part) BeforeCommit(ctx context.Context, t *hook.Txn) error { return p.c.beforeCommit(ctx, t) }

// Ended implements hook.TxnObserver.
func (p part) Ended(t *hook.Txn, outcome hook.TxnOutcome) { p.c.transactionEnded(t, outcome) }

// positioner returns the router's ability to tell WAL positions, or nil.
func (c *Cache) positioner() positioner {
	if hub := c.hub.Load(); hub != nil {
		if p := hub.Positioner(); p != nil {
			return p
		}
	}
	return nil
}

// readCatalog reads the database's catalogue on the primary, after the stamp
// that says as of when.
func (c *Cache) readCatalog(ctx context.Context) (cat *catalog, err error) {
	var s, since stamp
	if c.store == nil {
		s, _ = c.mirror.present(c.schema)
	} else {
		since = c.roster.named() // before the look: see rosterSchema.proposes
		if a, err := c.store.lookup(ctx, []string{schemaTag}, ""); err == nil && !a.marked {
			s = a.stamps[0]
		} // otherwise the catalogue is provisional, and read again before long
	}
	hub := c.hub.Load()
	switch dialect := dialectOf(hub); dialect {
	case "postgres":
		cat, err = readPostgres(ctx, hub.Primary().Pool())
	case "sqlite", "sqlite3":
		cat, err = readSQLite(ctx, hub.Primary().Pool(), c.salt)
	default:
		cat = readNothing(dialect)
	}
	if err != nil {
		return nil, err
	}
	cat.schema, cat.since = s, since
	c.catalogRead()
	c.warnOfRules(cat)
	if c.varies.Load() {
		cat.path, cat.varied = nil, true
	}
	return cat, nil
}

func dialectOf(hub *hook.Hub) string {
	if hub == nil {
		return "none"
	}
	return hub.DB().Name()
}

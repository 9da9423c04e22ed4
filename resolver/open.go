package resolver

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
)

// makeNodes makes the nodes of the configuration, opened where that is possible.
// home says what to call what gorm.Open connected to, if that is the primary.
func (r *Resolver) makeNodes(home Node) error {
	var errs []error
	add := func(n *node) {
		if err := r.openNode(n); err != nil {
			errs = append(errs, err)
		}
	}
	if r.cfg.Source == nil {
		home.Weight = cmp.Or(home.Weight, 1)
		r.hub.Home().Name = home.Name
		r.lead.Store(newNode(r, 0, home, true))
		r.hold(r.primary(), r.hub.Home())
		if db := sqlDB(r.hub.Home().Pool()); db != nil {
			r.primary().db.Store(db)
			r.primary().watch = r.watcherFor(r.primary(), r.hub.DB().Dialector, db)
		}
	} else {
		r.lead.Store(r.newNode(0, *r.cfg.Source, "Source"))
		add(r.primary())
	}
	all := []*node{r.primary()}
	for i, cfg := range r.cfg.Replicas {
		n := r.newNode(i, cfg, fmt.Sprintf("Replicas[%d]", i))
		add(n)
		all = append(all, n)
	}
	for i, cfg := range r.cfg.Groups {
		g := r.groups.list[i]
		if g.home != r {
			continue
		}
		for j, c := range cfg.Replicas {
			if c.refers() {
				for _, n := range all {
					if n.name == c.Name {
						n.groups = append(n.groups, g)
					}
				}
				continue
			}
			n := r.newNode(j, c, fmt.Sprintf("Groups[%d].Replicas[%d]", i, j))
			n.grouped, n.groups = true, []*group{g}
			add(n)
			all = append(all, n)
		}
	}
	r.set.Store(&nodeSet{all})
	for _, far := range r.groups.far {
		errs = append(errs, far.makeNodes(Node{})) // it has a Source
	}
	return errors.Join(errs...)
}

func (r *Resolver) newNode(i int, cfg Node, field string) *node {
	n := newNode(r, i, cfg, false)
	n.field, n.unplaced = r.field+field, !r.hasLSN()
	return n
}

// openNode opens a node. Some dialectors ask the server when they are opened:
// one that is down is tried again by its probe.
func (r *Resolver) openNode(n *node) error {
	switch other := dialectOf(n.cfg); {
	case other != r.hub.DB().Name():
		return fmt.Errorf("resolver: %s is a %s database: must be of the primary's kind, which is %s", n.field, other, r.hub.DB().Name())
	case n.cfg.DSN != "":
		return r.openDSN(n)
	}
	if err := r.openDialector(n); err != nil {
		n.lastErr = textOf(err)
	}
	return nil
}

func dialectOf(cfg Node) string {
	if cfg.DSN != "" {
		return "postgres"
	}
	return cfg.Dialector.Name()
}

// hasLSN reports whether the database has WAL positions.
func (r *Resolver) hasLSN() bool { return r.hub.DB().Name() == "postgres" }

// openDSN opens a pool as the primary's dialector would open it.
func (r *Resolver) openDSN(n *node) error {
	cfg, err := pgx.ParseConfig(n.cfg.DSN)
	if err != nil {
		return fmt.Errorf("resolver: %s.DSN is not readable%s: must be a connection string that pgx.ParseConfig accepts", n.field, dsnFault(err))
	}
	var opts []stdlib.OptionOpenDB
	if d := postgresConfig(r.hub.DB().Dialector); d != nil {
		if d.PreferSimpleProtocol {
			cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		}
		// Among them, if the DSN names a time zone, GORM's own that gives
		// timestamps the same location on each node.
		opts = slices.Clone(d.OptionOpenDB)
	}
	if r.lookup != nil {
		cfg.LookupFunc = r.lookup
	}
	if n.names = namesOf(cfg); n.names != nil {
		cfg.LookupFunc = n.names.resolve
	}
	n.watch = newWatcher(cfg, opts, r.cfg.Probe.Interval)
	cfg.AfterConnect = r.sameServer(n)
	n.sockets = newSockets(cfg.DialFunc)
	cfg.DialFunc = n.sockets.connect
	n.dial = newGentle(stdlib.GetConnector(*cfg, opts...))
	n.ours = sql.OpenDB(n.dial)
	r.adopt(n, n.ours)
	return nil
}

// openDialector opens a node with a gorm.Config of its own: with the primary's,
// gorm.Open would initialise its plugins again.
func (r *Resolver) openDialector(n *node) error {
	db, err := gorm.Open(n.cfg.Dialector, &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	if err != nil {
		return fmt.Errorf("resolver: open %q: %w", n.name, err)
	}
	pool := sqlDB(db.ConnPool)
	if pool != nil {
		if !givenPool(n.cfg.Dialector) {
			n.ours = pool
		}
		n.watch = r.watcherFor(n, n.cfg.Dialector, pool)
	}
	r.adopt(n, db.ConnPool)
	return nil
}

func (r *Resolver) adopt(n *node, pool gorm.ConnPool) {
	n.pool = pool
	if db := sqlDB(pool); db != nil {
		r.applyPool(n, db)
		n.db.Store(db)
	}
	r.called(pool)
	r.hold(n, r.hub.NewNode(n.name, pool))
}

// sameDSN reports whether two dialectors of Postgres connect to the same server
// as the same user in the same way: then one pool is enough.
func sameDSN(a, b gorm.Dialector) bool {
	p, q := postgresConfig(a), postgresConfig(b)
	return p != nil && q != nil && p.Conn == nil && q.Conn == nil && p.DSN != "" && p.DSN == q.DSN
}

// watcherFor makes the probe of a node that a dialector opened: on a connection
// of its own where the dialector tells how to make one, otherwise on one that
// it takes from the pool and keeps.
func (r *Resolver) watcherFor(n *node, d gorm.Dialector, pool *sql.DB) watcher {
	if !r.hasLSN() {
		return pinger{pool}
	}
	if c := postgresConfig(d); c != nil && c.Conn == nil && c.DriverName == "" && c.DSN != "" {
		if cfg, err := pgx.ParseConfig(c.DSN); err == nil {
			if n.names = namesOf(cfg); n.names != nil {
				cfg.LookupFunc = n.names.resolve
			}
			return newWatcher(cfg, slices.Clone(c.OptionOpenDB), r.cfg.Probe.Interval)
		}
	}
	return &pgWatcher{db: pool, patience: r.cfg.Probe.Interval}
}

func postgresConfig(d gorm.Dialector) *postgres.Config {
	switch d := d.(type) {
	case *postgres.Dialector:
		return d.Config
	case postgres.Dialector:
		return d.Config
	}
	return nil
}

// givenPool reports whether a dialector was given a ready pool, which all of
// GORM's keep in a field Conn.
func givenPool(d gorm.Dialector) bool {
	v := reflect.Indirect(reflect.ValueOf(d))
	if v.Kind() != reflect.Struct {
		return false
	}
	if c := v.FieldByName("Config"); c.IsValid() && c.Kind() == reflect.Pointer && c.IsNil() {
		return false
	}
	f := v.FieldByName("Conn")
	return f.IsValid() && f.Kind() == reflect.Interface && !f.IsNil()
}

// sqlDB is the *sql.DB below a pool, or nil.
func sqlDB(pool gorm.ConnPool) *sql.DB {
	switch p := pool.(type) {
	case *sql.DB:
		return p
	case *gorm.PreparedStmtDB:
		return sqlDB(p.ConnPool)
	case gorm.GetDBConnector:
		if db, err := p.GetDBConn(); err == nil {
			return db
		}
	}
	return nil
}

// closeAll closes what was opened, for groups too.
func (r *Resolver) closeAll() error {
	var errs []error
	for _, home := range r.homes() {
		errs = append(errs, home.closeNodes())
	}
	return errors.Join(errs...)
}

// closeNodes closes what was opened.
func (r *Resolver) closeNodes() error {
	var errs []error
	for _, n := range r.nodes() {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// close closes what was opened for n, whose goroutines have ended.
func (n *node) close() error {
	if n.watch != nil {
		n.watch.close()
	}
	if h := n.hooked.Load(); h != nil && !n.given {
		h.Close()
	}
	if n.ours != nil {
		return n.ours.Close()
	}
	return nil
}

// hold ties a node to what the hook layer calls it.
func (r *Resolver) hold(n *node, h *hook.Node) {
	h.SetOwner(n)
	n.hooked.Store(h)
	if r.root == r && r.cfg.Source != nil && n.isPrimary() {
		r.hub.SetPrimary(h)
	}
}

// nodeOf finds a node by what the hook layer calls it; nil for one that is not
// of r, such as of a Resolver that was closed before.
func (r *Resolver) nodeOf(h *hook.Node) *node {
	if n, ok := h.Owner().(*node); ok && n.home.root == r.root {
		return n
	}
	return nil
}

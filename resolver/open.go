package resolver

import (
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
func (r *Resolver) makeNodes() error {
	h := r.hub
	r.primary = &node{primary: true, kick: make(chan struct{}, 1)}
	r.primary.name = primaryName
	r.primary.hooked.Store(h.Primary())
	if db := sqlDB(h.Primary().Pool()); db != nil {
		r.primary.db.Store(db)
		r.primary.watch = r.watcherFor(h.DB().Dialector, db)
	}
	r.nodes = []*node{r.primary}
	var errs []error
	for i, cfg := range r.cfg.Replicas {
		n := &node{cfg: cfg, kick: make(chan struct{}, 1)}
		n.index, n.name, n.zone, n.weight = i, cfg.Name, cfg.Zone, cfg.Weight
		n.unplaced = !r.hasLSN()
		r.replicas = append(r.replicas, n)
		r.nodes = append(r.nodes, n)
		switch other := dialectOf(cfg); {
		case other != h.DB().Name():
			errs = append(errs, fmt.Errorf("resolver: Replicas[%d] is a %s database: must be of the primary's kind, which is %s", i, other, h.DB().Name()))
		case cfg.DSN != "":
			errs = append(errs, r.openDSN(n))
		default:
			// Some dialectors ask the server when they are opened: one that is
			// down is tried again by its probe.
			if err := r.openDialector(n); err != nil {
				n.lastErr = textOf(err)
			}
		}
	}
	return errors.Join(errs...)
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
		return fmt.Errorf("resolver: Replicas[%d].DSN is not readable%s: must be a connection string that pgx.ParseConfig accepts", n.index, dsnFault(err))
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
	n.ours = stdlib.OpenDB(*cfg, opts...)
	n.watch = newWatcher(cfg, opts, r.cfg.Probe.Interval)
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
		n.watch = r.watcherFor(n.cfg.Dialector, pool)
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
	n.hooked.Store(r.hub.NewNode(n.name, pool))
}

// watcherFor makes the probe of a node that a dialector opened: on a connection
// of its own where the dialector tells how to make one, otherwise on one that
// it takes from the pool and keeps.
func (r *Resolver) watcherFor(d gorm.Dialector, pool *sql.DB) watcher {
	if !r.hasLSN() {
		return pinger{pool}
	}
	if c := postgresConfig(d); c != nil && c.Conn == nil && c.DriverName == "" && c.DSN != "" {
		if cfg, err := pgx.ParseConfig(c.DSN); err == nil {
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

// closeNodes closes what was opened.
func (r *Resolver) closeNodes() error {
	var errs []error
	for _, n := range r.nodes {
		if n.watch != nil {
			n.watch.close()
		}
		if h := n.hooked.Load(); h != nil && !n.primary {
			h.Close()
		}
		if n.ours != nil {
			errs = append(errs, n.ours.Close())
		}
	}
	return errors.Join(errs...)
}

// nodeOf finds a node by what the hook layer calls it.
func (r *Resolver) nodeOf(h *hook.Node) *node {
	if h == r.hub.Primary() {
		return r.primary
	}
	for _, n := range r.replicas {
		if n.hooked.Load() == h {
			return n
		}
	}
	return nil
}

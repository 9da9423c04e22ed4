package resolver

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"
)

// Register makes a Resolver of what dbresolver.Register takes, so that a program
// that uses dbresolver changes one word:
//
//	db.Use(resolver.Register(dbresolver.Config{…}).Register(dbresolver.Config{…}, &User{}, "orders").SetMaxOpenConns(50))
//
// What differs is listed at [Config.AddDBResolver]. Faults are reported by db.Use.
func Register(cfg dbresolver.Config, tables ...any) *Resolver {
	return New(Config{}).Register(cfg, tables...)
}

// Register adds nodes as dbresolver's method of this name does, before db.Use.
// Later it does nothing but to log that: use [Resolver.AddReplica].
func (r *Resolver) Register(cfg dbresolver.Config, tables ...any) *Resolver {
	if r.opened.Load() {
		r.cfg.Logger.Error("resolver: Register was called after db.Use and has no effect: use AddReplica", "db", r.cfg.Name)
		return r
	}
	given, err := r.given.AddDBResolver(cfg, tables...)
	if err != nil {
		r.faults = append(r.faults, err)
		return r
	}
	r.given = given
	return r
}

// FromDBResolver makes a Config of dbresolver's, as [Config.AddDBResolver] does.
func FromDBResolver(cfg dbresolver.Config, tables ...any) (Config, error) {
	return Config{}.AddDBResolver(cfg, tables...)
}

// AddDBResolver returns a copy of c with the nodes of a dbresolver.Config: for
// all tables, or, as a [Group], for the tables, models and names given.
//
// These differ from dbresolver. Writes go to one primary: of several Sources it
// is the first; the others are kept to be promoted. Without a Policy the choice is
// that of [Config.Policy] and not random. Replicas must be standbys of the Source:
// one that is another database takes no reads. Begin without a clause begins on
// the Source of the Config without tables, also when gorm.Open connected to
// another server, and with Use but without Read on the Source. A Use that names
// nothing is an error.
func (c Config) AddDBResolver(cfg dbresolver.Config, tables ...any) (Config, error) {
	var policy Policy
	switch p := cfg.Policy.(type) {
	case nil:
	case dbresolver.RandomPolicy:
		policy = WeightedRandom()
	default:
		policy = PoolPolicy(p)
	}
	for i, d := range slices.Concat(cfg.Sources, cfg.Replicas) {
		if d == nil {
			return c, fmt.Errorf("resolver: dbresolver.Config has no Dialector in place %d of Sources and Replicas", i+1)
		}
	}
	c.Trace = c.Trace || cfg.TraceResolverMode
	if len(tables) == 0 {
		if c.Source != nil || len(c.Replicas) > 0 || c.Policy != nil {
			return c, errors.New("resolver: two dbresolver.Configs without tables: which one is for the tables of neither is not decided")
		}
		c.Source, c.Replicas = nodesOf(cfg, "")
		c.Policy = policy
		return c, nil
	}
	g := Group{Name: groupName(tables, len(c.Groups)), Tables: tables, Policy: policy}
	g.Source, g.Replicas = nodesOf(cfg, g.Name+"_")
	c.Groups = append(slices.Clone(c.Groups), g)
	return c, nil
}

// nodesOf takes over the nodes of a dbresolver.Config.
func nodesOf(cfg dbresolver.Config, prefix string) (source *Node, replicas []Node) {
	for _, d := range cfg.Replicas {
		replicas = append(replicas, Node{Dialector: d})
	}
	for i, d := range cfg.Sources {
		if i == 0 {
			source = &Node{Dialector: d}
			continue
		}
		replicas = append(replicas, Node{Name: fmt.Sprintf("%ssource%d", prefix, i+1), Dialector: d, Weight: NoReads})
	}
	return source, replicas
}

// groupName is the first of the names that dbresolver.Use may ask for, or one by
// number: the names of the models' tables are not known yet, and will do too.
func groupName(tables []any, n int) string {
	for _, t := range tables {
		if name, ok := t.(string); ok && name != "" {
			return name
		}
	}
	return fmt.Sprintf("group%d", n+1)
}

// Call calls fn for the pool of each node, as dbresolver's method of this name
// does: before db.Use for each as it is opened, the one of gorm.Open included.
// db.Use then returns the errors; of a node that is opened later, they are logged.
// fn must not add, drain or remove nodes.
func (r *Resolver) Call(fn func(gorm.ConnPool) error) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	r.calls = append(r.calls, fn)
	r.mu.Unlock()
	if !r.opened.Load() {
		return nil
	}
	var errs []error
	for _, home := range r.homes() {
		for _, n := range home.nodes() {
			if h := n.hooked.Load(); h != nil {
				errs = append(errs, fn(h.Pool()))
			}
		}
	}
	return errors.Join(errs...)
}

// called runs the calls of before for a pool that was opened.
func (r *Resolver) called(pool gorm.ConnPool) {
	root := r.root
	root.mu.Lock()
	calls := slices.Clone(root.calls)
	root.mu.Unlock()
	var errs []error
	for _, fn := range calls {
		errs = append(errs, fn(pool))
	}
	err := errors.Join(errs...)
	switch {
	case err == nil:
	case root.opened.Load():
		r.cfg.Logger.Error("resolver: a function given to Call failed for a node that was opened later", "db", r.cfg.Name, "error", err)
	default:
		root.faults = append(root.faults, fmt.Errorf("resolver: Call: %w", err))
	}
}

// set applies a bound to the *sql.DB of each node; one that cannot be set so is
// an error of db.Use.
func (r *Resolver) setPools(set func(*sql.DB)) *Resolver {
	_ = r.Call(func(pool gorm.ConnPool) error {
		db := sqlDB(pool)
		if db == nil {
			return fmt.Errorf("%T is no *sql.DB, whose bounds can be set", pool)
		}
		set(db)
		return nil
	})
	return r
}

// SetMaxOpenConns is [Pool].Max as dbresolver sets it.
func (r *Resolver) SetMaxOpenConns(n int) *Resolver {
	if !r.opened.Load() && n > 0 {
		r.given.Pool.Max = n
		r.given.Pool.Min = min(r.given.Pool.Min, n)
		return r
	}
	return r.setPools(func(db *sql.DB) { db.SetMaxOpenConns(n) })
}

// SetMaxIdleConns bounds the idle connections as dbresolver does. [Pool].Min is
// not kept above it.
func (r *Resolver) SetMaxIdleConns(n int) *Resolver {
	if !r.opened.Load() {
		r.maxIdle = max(n, 1)
		if n <= 0 {
			r.given.Pool.Min = -1
		}
	}
	return r.setPools(func(db *sql.DB) { db.SetMaxIdleConns(n) })
}

// SetConnMaxLifetime is [Pool].MaxLifetime as dbresolver sets it.
func (r *Resolver) SetConnMaxLifetime(d time.Duration) *Resolver {
	if !r.opened.Load() {
		r.given.Pool.MaxLifetime = d // to which a node returns whose connections are made anew
		if d <= 0 {
			r.given.Pool.MaxLifetime = -1
		}
		return r
	}
	return r.setPools(func(db *sql.DB) { db.SetConnMaxLifetime(d) })
}

// SetConnMaxIdleTime is [Pool].IdleTimeout as dbresolver sets it.
func (r *Resolver) SetConnMaxIdleTime(d time.Duration) *Resolver {
	return r.setPools(func(db *sql.DB) { db.SetConnMaxIdleTime(d) })
}

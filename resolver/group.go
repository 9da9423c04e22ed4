package resolver

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// Group gives some tables nodes, a policy or a bound of their own. A statement
// belongs to the group that dbresolver.Use names, otherwise to that of its table
// as GORM or its model names it, otherwise to that of the first table in its
// text; DDL only to one that is named, so that a migration stays in one place. A
// transaction belongs to the group that dbresolver.Use or db.Table names before
// Begin, otherwise to none.
type Group struct {
	// Name is what dbresolver.Use asks for; the names of Tables do too.
	Name string
	// Tables are the tables of the group: names, with their schema or without, or
	// models, as db.Model takes them. Each belongs to one group.
	Tables []any
	// Source is the primary of the group's tables, if they are in another
	// database than the others. Everything is then its own: history, own writes,
	// failover, and a part in the session's token, which knows it by Name. Its
	// default name is the group's with "_source". Nil: the primary of the Config.
	Source *Node
	// Replicas are the group's nodes besides the source. A Node with nothing but
	// a Name is that one of Config.Replicas, used by both, unless there is a
	// Source. Without replicas the group's reads go to the source. Their default
	// names are the group's with "_replica1", "_replica2", ….
	Replicas []Node
	// Policy chooses among the group's replicas. Default: that of the Config.
	Policy Policy
	// MaxLag is the bound for the group's tables. Default: that of the Config. A
	// read of several tables is as fresh as the strictest of them asks.
	MaxLag time.Duration
}

// group is a Group at work.
type group struct {
	name     string
	home     *Resolver // whose nodes it has: the root, or one for this group alone
	policy   Policy
	maxLag   time.Duration // 0: the configuration's
	tables   []string
	rotation atomic.Pointer[rotation] // not of a group with a home of its own
}

// groups says who serves which table. It is constant after Initialize.
type groups struct {
	list    []*group
	byName  map[string]*group
	byTable map[string]*group
	far     []*Resolver // those with a source of their own
}

// place is where a statement belongs.
type place struct {
	r    *Resolver
	g    *group // nil: the default, or the whole of r
	node *node  // named by dbresolver.Use
	// strictest bound of the other tables that are read, and whether one of
	// them is read on the primary alone
	bound     time.Duration
	onPrimary bool
}

// at makes the place of a group.
func (g *group) at(r *Resolver) place {
	if g.home != r {
		return place{r: g.home}
	}
	return place{r: r, g: g}
}

// belongs finds the place of a statement outside transactions.
func (r *Resolver) belongs(rec *hook.Record, hint hook.Hint) (place, error) {
	if hint.Use != "" {
		return r.placeNamed(hint.Use)
	}
	if len(r.groups.byTable) == 0 || rec.Text == nil || rec.Text.Operation == sqltext.DDL {
		return place{r: r}, nil
	}
	var main *group
	if rec.Chain != hook.Direct {
		main = r.groups.ofTable(rec.DB.Statement.Table)
		if main == nil && rec.Schema != nil {
			main = r.groups.ofTable(rec.Schema.Table)
		}
	}
	text := rec.Text
	switch {
	case main != nil:
	case len(text.Writes) > 0:
		main = r.groups.of(text.Writes[0])
	case len(text.Reads) > 0:
		main = r.groups.of(text.Reads[0])
	}
	p := place{r: r}
	if main != nil {
		p = main.at(r)
	}
	if p.r == r {
		for _, t := range text.Reads {
			if g := r.groups.of(t); g != nil && g != main && g.home == r {
				p.onPrimary = p.onPrimary || g.rotation.Load().configured == 0
				if g.maxLag > 0 && (p.bound == 0 || g.maxLag < p.bound) {
					p.bound = g.maxLag
				}
			}
		}
	}
	return p, nil
}

// belongsTx finds the place of a transaction.
func (r *Resolver) belongsTx(hint hook.Hint) (place, error) {
	if hint.Use != "" {
		return r.placeNamed(hint.Use)
	}
	if g := r.groups.ofTable(hint.Table); g != nil {
		return g.at(r), nil
	}
	return place{r: r}, nil
}

// placeNamed finds what dbresolver.Use names: a group, a table of one, a node.
func (r *Resolver) placeNamed(name string) (place, error) {
	if g := r.groups.byName[name]; g != nil {
		return g.at(r), nil
	}
	if g := r.groups.byTable[name]; g != nil {
		return g.at(r), nil
	}
	for _, home := range r.homes() {
		for _, n := range home.nodes() {
			if n.name == name {
				return place{r: home, node: n}, nil
			}
		}
	}
	var names []string
	for _, home := range r.homes() {
		for _, n := range home.nodes() {
			names = append(names, n.name)
		}
	}
	for _, g := range r.groups.list {
		names = append(names, g.name)
	}
	return place{}, fmt.Errorf("%w: %q: there are %s", ErrUnknownNode, name, strings.Join(names, ", "))
}

// homes are r and the Resolvers of groups with a source of their own.
func (r *Resolver) homes() []*Resolver {
	if len(r.groups.far) == 0 {
		return []*Resolver{r}
	}
	return append([]*Resolver{r}, r.groups.far...)
}

// of finds the group of a table that a text names.
func (g *groups) of(t sqltext.Table) *group {
	if t.Schema != "" {
		if found := g.byTable[t.Schema+"."+t.Name]; found != nil {
			return found
		}
	}
	return g.byTable[t.Name]
}

// ofTable finds the group of a table that GORM names.
func (g *groups) ofTable(name string) *group {
	if name == "" || len(g.byTable) == 0 {
		return nil
	}
	if found := g.byTable[name]; found != nil {
		return found
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return g.byTable[name[i+1:]]
	}
	return nil
}

// makeGroups makes the groups of the configuration, before the nodes.
func (r *Resolver) makeGroups() error {
	g := &r.groups
	g.byName, g.byTable = map[string]*group{}, map[string]*group{}
	for i, cfg := range r.cfg.Groups {
		made := &group{name: cfg.Name, home: r, policy: cfg.Policy, maxLag: cfg.MaxLag}
		made.rotation.Store(&rotation{})
		if made.policy == nil {
			made.policy = r.cfg.Policy
		}
		if cfg.Source != nil && !sameDSN(cfg.Source.Dialector, r.hub.DB().Dialector) {
			made.home = r.farFor(i, cfg, made.policy)
			g.far = append(g.far, made.home)
		}
		g.list = append(g.list, made)
		g.byName[cfg.Name] = made
		for j, t := range cfg.Tables {
			name, err := tableOf(r.hub.DB(), t)
			if err != nil {
				return fmt.Errorf("resolver: Groups[%d].Tables[%d] is %T: must be a table's name or a model: %w", i, j, t, err)
			}
			if other := g.byTable[name]; other != nil && other != made {
				return fmt.Errorf("resolver: Groups[%d].Tables[%d] is %q: belongs to the group %q already", i, j, name, other.name)
			}
			g.byTable[name] = made
			if !slices.Contains(made.tables, name) {
				made.tables = append(made.tables, name)
			}
		}
	}
	return nil
}

// tableOf is the table's name of what Group.Tables holds.
func tableOf(db *gorm.DB, t any) (string, error) {
	if name, ok := t.(string); ok {
		return name, nil
	}
	stmt := &gorm.Statement{DB: db}
	if err := stmt.Parse(t); err != nil {
		return "", err
	}
	return stmt.Schema.Table, nil
}

// farFor makes the Resolver of a group with a source of its own.
func (r *Resolver) farFor(i int, cfg Group, p Policy) *Resolver {
	far := New(r.cfg)
	far.root, far.hub, far.now, far.lookup = r, r.hub, r.now, r.lookup
	far.field, far.serves = fmt.Sprintf("Groups[%d].", i), cfg.Name
	far.part = partOfGroup(cfg.Name)
	far.cfg = r.cfg
	far.cfg.Groups, far.cfg.Source, far.cfg.Replicas, far.cfg.Policy = nil, cfg.Source, cfg.Replicas, p
	if cfg.MaxLag > 0 {
		far.cfg.MaxLag = cfg.MaxLag
	}
	far.expiry, far.tightest = r.expiry, r.tightest
	far.rotation.Store(&rotation{})
	return far
}

package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// drainPoll is how often the end of a node's work is looked for.
const drainPoll = 2 * time.Millisecond

// AddReplica adds a replica at run time: to the reads outside groups, or to the
// groups that are named. It waits until the node has been probed once, or ctx
// ends; the node is there in either case, and takes reads as soon as it is fit. An
// error that is not of ctx says why it was not added.
func (r *Resolver) AddReplica(ctx context.Context, cfg Node, groups ...string) error {
	n, err := r.addReplica(cfg, groups)
	if err != nil {
		return err
	}
	for {
		next := n.home.nextProbe()
		n.home.mu.Lock()
		answered := n.answered
		n.home.mu.Unlock()
		if answered {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("resolver: wait for the first probe of %s: %w", n.name, ctx.Err())
		case <-r.done():
			return errClosed
		}
	}
}

var errClosed = errors.New("resolver: closed")

func (r *Resolver) addReplica(cfg Node, names []string) (*node, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if !r.live.Load() {
		return nil, errors.New("resolver: not in use: call db.Use first, without Disabled, and do so before Close")
	}
	f := &faults{names: map[string]string{primaryName: ""}}
	taken := 0
	for _, home := range r.homes() {
		for _, n := range home.nodes() {
			f.names[n.name] = "a node that is there"
			taken++
		}
	}
	for name := range r.groups.byName {
		f.names[name] = "a group"
	}
	if cfg.Name == "" {
		f.add("Node.Name", `""`, "must be set for a node that is added")
	}
	if taken > maxReplicas {
		f.add("Node", "one too many", "at most 256 nodes are possible")
	}
	f.node("Node", cfg, "")
	home, serves, err := r.groupsNamed(names)
	if err := errors.Join(append(f.errs, err)...); err != nil {
		return nil, err
	}
	if cfg.Weight == 0 {
		cfg.Weight = 1
	}
	n := home.newNode(len(home.nodes()), cfg, "Node")
	n.field = "Node"
	n.grouped, n.groups = len(serves) > 0, serves
	if err := home.openNode(n); err != nil {
		return nil, err
	}
	home.mu.Lock()
	home.set.Store(&nodeSet{append(slices.Clone(home.nodes()), n)})
	home.rebuild()
	home.mu.Unlock()
	home.watching.Do(func() { home.start(home.primary()) })
	home.start(n)
	home.keep(n)
	home.log([]change{{n, slog.LevelInfo, "node was added", nil}})
	return n, nil
}

// groupsNamed finds groups of one home.
func (r *Resolver) groupsNamed(names []string) (home *Resolver, serves []*group, err error) {
	home = r
	for i, name := range names {
		g := r.groups.byName[name]
		switch {
		case g == nil:
			return r, nil, fmt.Errorf("resolver: unknown group %q", name)
		case i > 0 && g.home != home, i > 0 && g.home != r:
			return r, nil, fmt.Errorf("resolver: group %q has a source of its own and shares no nodes", name)
		}
		home = g.home
		if home == r {
			serves = append(serves, g)
		}
	}
	return home, serves, nil
}

// Drain gives a replica no new work. What is under way there ends in peace. It
// goes on being probed; [Resolver.Resume] gives it work again.
func (r *Resolver) Drain(name string) error { return r.setDraining(name, true) }

// Resume ends what [Resolver.Drain] began.
func (r *Resolver) Resume(name string) error { return r.setDraining(name, false) }

func (r *Resolver) setDraining(name string, yes bool) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	n, err := r.replicaNamed(name)
	if err != nil || n.draining.Load() == yes {
		return err
	}
	home := n.home
	home.mu.Lock()
	if n.isPrimary() { // since a moment ago
		home.mu.Unlock()
		return fmt.Errorf("resolver: %s is the primary: writes have nowhere else to go", name)
	}
	n.draining.Store(yes)
	home.rebuild()
	home.mu.Unlock()
	what := "node is drained"
	if !yes {
		what = "node takes work again"
	}
	home.log([]change{{n, slog.LevelInfo, what, nil}})
	return nil
}

// replicaNamed finds a node that may be taken out of use.
func (r *Resolver) replicaNamed(name string) (*node, error) {
	if !r.live.Load() {
		return nil, errClosed
	}
	for _, home := range r.homes() {
		for _, n := range home.nodes() {
			switch {
			case n.name != name:
			case n.isPrimary():
				return nil, fmt.Errorf("resolver: %s is the primary: writes have nowhere else to go", name)
			case n.given:
				return nil, fmt.Errorf("resolver: %s is what gorm.Open connected to and cannot be taken out", name)
			default:
				return n, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownNode, name)
}

// RemoveReplica drains a replica, waits until the statements and transactions
// there have ended, and closes it. When ctx ends first the node stays, drained.
func (r *Resolver) RemoveReplica(ctx context.Context, name string) error {
	if err := r.Drain(name); err != nil {
		return err
	}
	n, err := r.replicaNamed(name)
	if err != nil {
		return err
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for n.busy() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("resolver: wait for the work on %s to end: %w", name, ctx.Err())
		case <-r.done():
			return errClosed
		}
	}
	return r.remove(n)
}

// busy reports whether a drained node still has work. Who chose it before it was
// drained has counted himself in, and who does so after looks whether it is.
func (n *node) busy() bool {
	if n.inFlight.Load() > 0 || n.begins.Load() > 0 {
		return true
	}
	if db := n.db.Load(); db != nil {
		return db.Stats().InUse > n.held()
	}
	return false
}

// held is how many connections of the pool the probe keeps.
func (n *node) held() int {
	if w, ok := n.watch.(*pgWatcher); ok && !w.ours {
		return 1
	}
	return 0
}

func (r *Resolver) remove(n *node) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	home := n.home
	if !r.live.Load() {
		return errClosed
	}
	home.mu.Lock()
	if n.isPrimary() || !n.draining.Load() || !slices.Contains(home.nodes(), n) {
		home.mu.Unlock()
		return fmt.Errorf("resolver: %s is in use again", n.name)
	}
	home.set.Store(&nodeSet{slices.DeleteFunc(slices.Clone(home.nodes()), func(m *node) bool { return m == n })})
	home.rebuild()
	home.mu.Unlock()
	close(n.stop)
	n.wg.Wait()
	err := n.close()
	home.log([]change{{n, slog.LevelInfo, "node was removed", nil}})
	return err
}

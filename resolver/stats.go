package resolver

import (
	"slices"
	"time"
)

// NodeStatus is what is known of a node at one instant.
type NodeStatus struct {
	Name    string
	Zone    string
	Weight  int
	Primary bool // the one that writes go to

	// Groups are the groups that the node serves; Draining that it takes no new
	// work.
	Groups   []string
	Draining bool

	// Up: in rotation, and of the right role and history. Misfit says why a
	// node that answers is not used: "wrong role", "other system identifier",
	// "other timeline".
	Up     bool
	Misfit string
	// LastError is of the probe or statement that put the node out of rotation.
	LastError string
	// Staleness is how far the node may be behind the primary; -1 while that is
	// not known.
	Staleness time.Duration
	// LSN is the WAL position inserted on the primary, replayed on a replica.
	LSN      uint64
	InFlight int
	// Latency is the moving average of reads there.
	Latency time.Duration

	Ejections        uint64
	Probes           uint64
	ProbeErrors      uint64
	ConnectionErrors uint64 // attempts of statements that the connection failed
	// Decisions counts the statements and transactions sent here, by reason.
	Decisions map[string]uint64

	Pool PoolStatus
}

// PoolStatus is the state of a node's pool; zero where it is no *sql.DB.
type PoolStatus struct {
	Max, Open, InUse, Idle int
	Waits                  uint64 // for a connection, since the start
	Waited                 time.Duration
}

// Stats is a snapshot of a Resolver.
type Stats struct {
	Nodes []NodeStatus // the primary first
	// Rotation is how many replicas take reads now, of those outside groups.
	Rotation int
	// Failovers counts the changes of the primary that were followed, the last of
	// which is LastFailover.
	Failovers    uint64
	LastFailover Failover
	// NoPrimary says why there is no primary now; empty while there is one.
	NoPrimary string
	// Spilled is how many reads are on a primary now because no replica is fit.
	Spilled int
	// Refused counts the reads that ended with ErrBusy or ErrNoReplica, by priority.
	Refused map[string]uint64
	// Groups in the order of the configuration.
	Groups []GroupStatus
}

// GroupStatus is the state of a [Group].
type GroupStatus struct {
	Name   string
	Tables []string // those of models under the names that GORM gives them
	// Source is the name of the node that takes the group's writes now.
	Source   string
	Replicas []string // that serve the group, drained ones too
	Rotation int      // how many of them take reads now
	MaxLag   time.Duration
}

// Snapshot is Stats, by the name that an operator looks for.
func (r *Resolver) Snapshot() Stats { return r.Stats() }

// Stats returns the present state. It does not block on I/O.
func (r *Resolver) Stats() Stats {
	s := Stats{Nodes: r.Nodes()}
	if rot := r.rotation.Load(); rot != nil && r.live.Load() {
		s.Rotation = len(rot.list)
	}
	s.Refused = map[string]uint64{}
	for _, home := range r.homes() {
		home.failoverStats(&s)
		s.Spilled += int(home.spills.Load())
		for p := range home.refusals {
			if n := home.refusals[p].Load(); n > 0 {
				s.Refused[Priority(p).String()] += n
			}
		}
	}
	for _, g := range r.groups.list {
		s.Groups = append(s.Groups, g.status(r))
	}
	return s
}

func (g *group) status(r *Resolver) GroupStatus {
	s := GroupStatus{Name: g.name, Tables: g.tables, MaxLag: g.maxLag}
	rot := g.home.rotation.Load()
	if g.home == r {
		rot = g.rotation.Load()
	}
	s.Rotation = len(rot.list)
	if s.MaxLag == 0 {
		s.MaxLag = g.home.cfg.MaxLag
	}
	if p := g.home.primary(); p != nil {
		s.Source = p.name
	}
	for _, n := range g.home.replicas() {
		if g.home != r || slices.Contains(n.groups, g) {
			s.Replicas = append(s.Replicas, n.name)
		}
	}
	return s
}

// Nodes returns the state of each node, the primary first. It is empty before
// db.Use.
func (r *Resolver) Nodes() []NodeStatus {
	if !r.opened.Load() {
		return nil
	}
	var list []NodeStatus
	for _, home := range r.homes() {
		home.mu.Lock()
		now := home.now()
		for _, n := range home.nodes() {
			list = append(list, home.statusOf(n, now))
		}
		home.mu.Unlock()
	}
	return list
}

func (r *Resolver) statusOf(n *node, now int64) NodeStatus {
	s := NodeStatus{
		Name: n.name, Zone: n.zone, Weight: n.weight, Primary: n.isPrimary(),
		Up: n.usable.Load(), Misfit: n.misfit.String(), LastError: n.lastErr, Staleness: -1, LSN: n.last.lsn,
		InFlight: int(n.inFlight.Load()), Latency: time.Duration(n.latency.Load()),
		Ejections: n.health.ejections, Probes: n.probes.Load(), ProbeErrors: n.probeErrors.Load(), ConnectionErrors: n.connErrors.Load(),
		Decisions: map[string]uint64{},
	}
	s.Draining = n.draining.Load()
	if r.root != r {
		s.Groups = []string{r.serves}
	}
	for _, g := range n.groups {
		s.Groups = append(s.Groups, g.name)
	}
	if d, ok := r.staleness(n, now); ok {
		s.Staleness = d
	}
	for why := range n.decisions {
		if c := n.decisions[why].Load(); c > 0 {
			s.Decisions[reason(why).String()] = c
		}
	}
	if db := n.db.Load(); db != nil {
		p := db.Stats()
		s.Pool = PoolStatus{
			Max: p.MaxOpenConnections, Open: p.OpenConnections, InUse: p.InUse, Idle: p.Idle,
			Waits: uint64(p.WaitCount) + n.gate.waits.Load(), Waited: p.WaitDuration + time.Duration(n.gate.waited.Load()),
		}
	}
	return s
}

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

	// Watched: the node is probed. The primary is from the start where there are
	// replicas or a Session.Key, whose tokens tell its WAL position; otherwise from
	// when somebody asks for that; and never where its pool is no *sql.DB. As long as
	// it is not, nothing is known against it, and it counts as Up.
	Watched bool
	// Up: in rotation, and of the right role and history. Misfit says why a
	// node that answers is not used: "wrong role", "other system identifier",
	// "other database" (of the same servers), "other timeline".
	Up     bool
	Misfit string
	// LastError is of the probe or statement that put the node out of rotation.
	LastError string
	// Staleness is how far the node may be behind the primary, so 0 for that;
	// -1 while it is not known.
	Staleness time.Duration
	// LSN is the WAL position inserted on the primary, replayed on a replica; 0
	// while it is not known.
	LSN      uint64
	InFlight int
	// Latency is the moving average of reads there.
	Latency time.Duration

	Ejections        uint64
	Probes           uint64
	ProbeErrors      uint64
	ConnectionErrors uint64 // attempts of statements that the connection failed
	// Decisions counts the statements and transactions sent here, by reason.
	//
	// Wherever it is:
	//   - replica: a read on a replica that is fit
	//   - preload: a Preload, on the node of the statement that it belongs to
	//   - named: dbresolver.Use
	//   - handle: the node that a [Conn] keeps to
	//   - retry: the second attempt of a read, of beginning a transaction, or of a
	//     write that surely has not run
	//
	// On the primary, because of the statement:
	//   - write: it changes rows or schema, or may do so
	//   - needs_primary: it changes nothing, but a standby cannot run it
	//   - transaction: it is not read-only, or serializable
	//   - asked: [Primary], [Critical], dbresolver.Write, a [Conn] for writes
	//   - cache_fill: what it reads is to be cached, and no replica is known to
	//     have what was written last
	//   - token: the caller's token cannot be read, asks for the primary, or is of
	//     another history
	//   - tight_bound: its bound is below two probe intervals
	//
	// On the primary, for want of a replica:
	//   - own_write: none has yet what the caller itself wrote
	//   - earlier_read: none surely has what the caller was shown before
	//   - lag: all are further behind than the bound allows
	//   - position: none has replayed the WAL position that was asked for
	//   - down: none is in rotation
	//   - no_replica: none is configured
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
		Watched: n.watched.Load(), Up: n.usable.Load() || n.isPrimary() && !n.watched.Load(), Misfit: n.misfit.String(), LastError: n.lastErr, Staleness: -1, LSN: n.last.lsn,
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

package resolver

import "time"

// NodeStatus is what is known of a node at one instant.
type NodeStatus struct {
	Name    string
	Zone    string
	Weight  int
	Primary bool // the one that gorm.Open connected to

	// Watched: the node is probed. The primary is not as long as there are no
	// replicas and nobody asks for its WAL position, nor where its pool is no
	// *sql.DB: then nothing is known against it, and it counts as Up.
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
	//   - retry: the second attempt of a read, or of beginning a read-only
	//     transaction, that failed elsewhere
	//
	// On the primary, because of the statement:
	//   - write: it changes rows or schema, or may do so
	//   - needs_primary: it changes nothing, but a standby cannot run it
	//   - transaction: it is not read-only, or serializable
	//   - asked: [Primary], [Critical], dbresolver.Write, a [Conn] for writes
	//   - cache_fill: what it reads is to be cached, and no replica is known to
	//     have what was written last
	//   - tight_bound: its bound is below two probe intervals
	//
	// On the primary, for want of a replica:
	//   - own_write: none has yet what the caller itself wrote
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
	// Rotation is how many replicas take reads now.
	Rotation int
}

// Stats returns the present state. It does not block on I/O.
func (r *Resolver) Stats() Stats {
	s := Stats{Nodes: r.Nodes()}
	if rot := r.rotation.Load(); rot != nil && r.live.Load() {
		s.Rotation = len(rot.list)
	}
	return s
}

// Nodes returns the state of each node, the primary first. It is empty before
// db.Use.
func (r *Resolver) Nodes() []NodeStatus {
	if !r.opened.Load() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	list := make([]NodeStatus, len(r.nodes))
	for i, n := range r.nodes {
		list[i] = r.statusOf(n, now)
	}
	return list
}

func (r *Resolver) statusOf(n *node, now int64) NodeStatus {
	s := NodeStatus{
		Name: n.name, Zone: n.zone, Weight: n.weight, Primary: n.primary,
		Watched: n.watched.Load(), Up: n.usable.Load() || n.primary && !n.watched.Load(), Misfit: n.misfit.String(), LastError: n.lastErr, Staleness: -1, LSN: n.last.lsn,
		InFlight: int(n.inFlight.Load()), Latency: time.Duration(n.latency.Load()),
		Ejections: n.health.ejections, Probes: n.probes.Load(), ProbeErrors: n.probeErrors.Load(), ConnectionErrors: n.connErrors.Load(),
		Decisions: map[string]uint64{},
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
			Waits: uint64(p.WaitCount), Waited: p.WaitDuration,
		}
	}
	return s
}

package resolver

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"gorm.io/gorm"
)

// AnyStaleness accepts whatever a replica has, as Config.MaxLag or by
// [MaxStaleness]. Without it, replicas of a database that has no WAL positions
// (any but Postgres) take no reads, because nothing can be known of their lag.
// There it also gives up that a chain of work without a scope sees its own
// writes; with a scope, what wrote stays on the primary. On Postgres own writes
// are seen even so.
const AnyStaleness time.Duration = math.MaxInt64

// Config says which nodes there are and what is asked of them. The zero value is
// valid: the primary alone, with its pool as the caller made it.
type Config struct {
	// Name distinguishes several databases of one process in the log. Default
	// "default".
	Name string

	// Source is the primary, if it is another server than what gorm.Open connected
	// to, which then serves only what is prepared by hand and db.DB(). Default: what
	// gorm.Open connected to, under the name "primary". Without DSN and Dialector
	// it is that, too, and the fields are for it: a name that does not mislead when
	// another node is promoted, a Zone and a Weight for when it is a replica.
	Source *Node

	// Replicas are the nodes besides the primary, which is what gorm.Open
	// connected to. They need not be up when the program starts.
	Replicas []Node

	// MaxLag is the staleness up to which a replica serves reads; [MaxStaleness]
	// overrides it for a call. Default 5 s. A bound below two probe intervals
	// cannot be judged and means the primary, of which a line in the log warns.
	// [AnyStaleness] sets no bound.
	MaxLag time.Duration

	// Pool bounds the connections to each node, the primary included. Without
	// replicas, those of Groups too, and with no field of Pool set, the pool that
	// gorm.Open made is left as it is.
	Pool Pool

	// Policy chooses among the replicas that are fit. Default: of two draws by
	// weight, the one with the smaller latency x (statements in flight + 1).
	Policy Policy

	// Probe says how the nodes are watched.
	Probe Probe

	// Session says how a client's own writes are carried to its next request.
	Session Session
	// Groups give tables nodes, a policy or a bound of their own.
	Groups []Group

	// Priorities say what is asked of the nodes for reads of each [Priority].
	Priorities Priorities

	// Functions says of functions of the database what the plugin cannot know: by
	// name, or schema and name, as Postgres folds them, whether one may run on a
	// replica. It stands above what pg_proc says of those that are not built in.
	Functions map[string]Volatility

	// Trace puts "[primary]", or the name of the replica, in front of each
	// statement that GORM logs.
	Trace bool

	// WithoutPrimary says how lag is judged while the primary does not answer.
	// Default [Freeze].
	WithoutPrimary WithoutPrimary

	// FailoverWait is how long a statement that needs the primary waits for one
	// while there is none, within its context, before it fails with
	// [ErrNoPrimary]. Default 1 s. Negative: not at all.
	FailoverWait time.Duration

	// SlowStart is the time in which the share of a replica that comes back into
	// rotation grows from a tenth to all of it. Default 10 s. Negative: none.
	SlowStart time.Duration

	// Logger receives one line for each change of a node's state. Default
	// [slog.Default].
	Logger *slog.Logger
	// Disabled leaves all statements where they would go without the plugin,
	// and the pool as it is.
	Disabled bool
}

// Node is a replica. Exactly one of DSN and Dialector is set.
type Node struct {
	// Name stands for the node in metrics, logs and dbresolver.Use. Default
	// "replica1", "replica2", … by its place in the list. Each name once, and
	// not "primary".
	Name string
	// DSN is a Postgres connection string for exactly one server: behind a load
	// balancer the probe would watch another server than the statements use.
	DSN string
	// Dialector opens the node with a gorm.Config of its own. A ready pool that
	// it was given (its field Conn) stays the caller's and is not closed.
	Dialector gorm.Dialector
	// Weight is the node's share of the reads. Zero is the default of 1.
	// Negative, as [NoReads]: none, but for those that name it with
	// dbresolver.Use.
	Weight int
	// Zone is for a Policy that prefers near nodes.
	Zone string
}

// NoReads is the Weight of a node that is watched and kept warm, but takes no
// reads except those that name it: one for reports, or one that waits to be
// promoted.
const NoReads = -1

// Volatility says whether a function may run on a replica.
type Volatility uint8

const (
	// ReadOnly functions change nothing and run on a replica. That they always
	// answer the same is not claimed: nothing is cached for it.
	ReadOnly Volatility = iota + 1
	// Volatile functions may write: they run on the primary, and count as a write.
	Volatile
)

func (v Volatility) String() string {
	switch v {
	case ReadOnly:
		return "read-only"
	case Volatile:
		return "volatile"
	}
	return fmt.Sprintf("Volatility(%d)", uint8(v))
}

// DSNs makes replicas of equal weight, named "replica1", "replica2", ….
func DSNs(dsn ...string) []Node {
	nodes := make([]Node, len(dsn))
	for i, d := range dsn {
		nodes[i].DSN = d
	}
	return nodes
}

// Pool bounds the connections to one node. It is applied to the *sql.DB of each
// node when the plugin is used; a limit that was set on the primary's *sql.DB
// before stands unless Max says otherwise. The defaults hold as soon as there are
// replicas or one field is set: the zero Pool of a primary alone changes nothing
// and opens nothing. On other databases than Postgres only the fields that are set
// are applied, since an SQLite in memory is a database for each connection.
type Pool struct {
	// Max is the most connections that are open at once. Default 50.
	Max int
	// Min connections are opened at the start and kept open. Default 10, or Max
	// if that is less. Negative: none.
	Min int
	// Reserve connections of each node are for [Critical] reads, and for writes
	// and transactions: the others wait before they take them. Default a tenth of
	// Max. Negative: none.
	Reserve int
	// IdleTimeout closes connections that were not used for so long; those that
	// Min asks for are replaced. Default 5 min. Negative: never.
	IdleTimeout time.Duration
	// MaxLifetime closes connections of that age, less up to a tenth so that not
	// all nodes are dialled at once. Default 1 h. Negative: never.
	MaxLifetime time.Duration
}

// Probe says how the nodes are watched. Each Postgres node has one connection
// for it besides its pool, so that a saturated pool is no dead node.
type Probe struct {
	// Interval is the longest time between two probes of a node; it is
	// shortened at random by up to a fifth. Default 250 ms.
	Interval time.Duration
	// Timeout is how long a probe may take. Two that took longer in a row put
	// the node out of rotation. Default 250 ms.
	Timeout time.Duration
}

// WithoutPrimary says how the lag of replicas is judged while the primary does
// not answer its probes.
type WithoutPrimary uint8

const (
	// Freeze judges replicas as at the last answer of the primary, so that its
	// loss does not take the reads with it. A bound by [MaxStaleness] is not
	// frozen.
	Freeze WithoutPrimary = iota
	// Strict lets the lag grow, so that reads fail once it exceeds MaxLag.
	Strict
)

func (w WithoutPrimary) String() string {
	switch w {
	case Freeze:
		return "freeze"
	case Strict:
		return "strict"
	}
	return fmt.Sprintf("WithoutPrimary(%d)", uint8(w))
}

const (
	defaultMaxLag      = 5 * time.Second
	defaultMax         = 50
	defaultMin         = 10
	defaultIdleTimeout = 5 * time.Minute
	defaultMaxLifetime = time.Hour
	defaultInterval    = 250 * time.Millisecond
	defaultTimeout     = 250 * time.Millisecond
	defaultFailover    = time.Second
	defaultSlowStart   = 10 * time.Second
	minInterval        = time.Millisecond
	maxReplicas        = 256
	maxWeight          = 1 << 16
	primaryName        = "primary"
)

// withDefaults returns a copy in which every default but those of Pool, which
// depend on the database, is spelled out.
func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "default")
	c.MaxLag = cmp.Or(c.MaxLag, defaultMaxLag)
	c.Probe.Interval = cmp.Or(c.Probe.Interval, defaultInterval)
	c.Probe.Timeout = cmp.Or(c.Probe.Timeout, defaultTimeout)
	c.Session = c.Session.withDefaults(c.loosest())
	c.FailoverWait = cmp.Or(c.FailoverWait, defaultFailover)
	c.SlowStart = cmp.Or(c.SlowStart, defaultSlowStart)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Source = withDefaultName(c.Source, primaryName)
	c.Replicas = namedNodes(c.Replicas, "")
	c.Groups = slices.Clone(c.Groups)
	for i := range c.Groups {
		g := &c.Groups[i]
		g.Source = withDefaultName(g.Source, g.Name+"_source")
		g.Replicas = namedNodes(g.Replicas, g.Name+"_")
	}
	c.Priorities = c.Priorities.withDefaults()
	return c
}

// loosest is the farthest bound that the configuration gives any read.
func (c Config) loosest() time.Duration {
	bound := max(c.MaxLag, c.Priorities.Critical.MaxLag, c.Priorities.Normal.MaxLag, c.Priorities.Background.MaxLag)
	for _, g := range c.Groups {
		bound = max(bound, g.MaxLag)
	}
	return bound
}

// tightBounds names the fields whose bound no replica can be shown to keep, so that
// the reads which they are for all go to the primary.
func (c Config) tightBounds(tightest time.Duration) (fields []string) {
	note := func(field string, bound time.Duration) {
		if bound > 0 && bound < tightest {
			fields = append(fields, field)
		}
	}
	note("MaxLag", c.MaxLag)
	for i, g := range c.Groups {
		note(fmt.Sprintf("Groups[%d].MaxLag", i), g.MaxLag)
	}
	note("Priorities.Critical.MaxLag", c.Priorities.Critical.MaxLag)
	note("Priorities.Normal.MaxLag", c.Priorities.Normal.MaxLag)
	note("Priorities.Background.MaxLag", c.Priorities.Background.MaxLag)
	return fields
}

func withDefaultName(n *Node, name string) *Node {
	if n == nil {
		return nil
	}
	named := *n
	named.Name = cmp.Or(n.Name, name)
	return &named
}

// namedNodes returns a copy in which names and weights are spelled out.
func namedNodes(nodes []Node, prefix string) []Node {
	nodes = slices.Clone(nodes)
	for i := range nodes {
		n := &nodes[i]
		n.Name = nameOf(i, *n, prefix)
		n.Weight = cmp.Or(n.Weight, 1)
	}
	return nodes
}

func nameOf(i int, n Node, prefix string) string {
	return cmp.Or(n.Name, fmt.Sprintf("%sreplica%d", prefix, i+1))
}

// withDefaults spells out what is applied to a node's pool. limit is what the
// caller had set before, 0 for none.
func (p Pool) withDefaults(postgres bool, limit int) Pool {
	if postgres {
		p.Max = cmp.Or(p.Max, limit, defaultMax)
		p.Min = cmp.Or(p.Min, min(defaultMin, p.Max))
		p.IdleTimeout = cmp.Or(p.IdleTimeout, defaultIdleTimeout)
		p.MaxLifetime = cmp.Or(p.MaxLifetime, defaultMaxLifetime)
		p.Reserve = cmp.Or(p.Reserve, p.Max/10)
	}
	p.Min, p.Reserve = max(p.Min, 0), max(p.Reserve, 0)
	if p.Max > 0 {
		p.Min = min(p.Min, p.Max)
	}
	return p
}

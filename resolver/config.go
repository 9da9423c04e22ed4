package resolver

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
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

	// Replicas are the nodes besides the primary, which is what gorm.Open
	// connected to. They need not be up when the program starts.
	Replicas []Node

	// MaxLag is the staleness up to which a replica serves reads; [MaxStaleness]
	// overrides it for a call. Default 5 s. A bound below two probe intervals
	// cannot be judged and means the primary. [AnyStaleness] sets no bound.
	MaxLag time.Duration

	// Pool bounds the connections to each node, the primary included. Without
	// Replicas and with no field of Pool set the pool is left as it is.
	Pool Pool

	// Policy chooses among the replicas that are fit. Default: of two draws by
	// weight, the one with the smaller latency x (statements in flight + 1).
	Policy Policy

	// Probe says how the nodes are watched.
	Probe Probe

	// WithoutPrimary says how lag is judged while the primary does not answer.
	// Default [Freeze].
	WithoutPrimary WithoutPrimary

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
	// Weight is the node's share of the reads. Default 1. Negative: none, but
	// for those that name it with dbresolver.Use.
	Weight int
	// Zone is for a Policy that prefers near nodes.
	Zone string
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
// and opens nothing. On other databases than Postgres
// only the fields that are set are applied, since an SQLite in memory is a
// database for each connection.
type Pool struct {
	// Max is the most connections that are open at once. Default 50.
	Max int
	// Min connections are opened at the start and kept open. Default 10, or Max
	// if that is less. Negative: none.
	Min int
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
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Replicas = slices.Clone(c.Replicas)
	for i := range c.Replicas {
		n := &c.Replicas[i]
		n.Name = nameOf(i, *n)
		n.Weight = cmp.Or(n.Weight, 1)
	}
	return c
}

func nameOf(i int, n Node) string {
	return cmp.Or(n.Name, fmt.Sprintf("replica%d", i+1))
}

// withDefaults spells out what is applied to a node's pool. limit is what the
// caller had set before, 0 for none.
func (p Pool) withDefaults(postgres bool, limit int) Pool {
	if postgres {
		p.Max = cmp.Or(p.Max, limit, defaultMax)
		p.Min = cmp.Or(p.Min, min(defaultMin, p.Max))
		p.IdleTimeout = cmp.Or(p.IdleTimeout, defaultIdleTimeout)
		p.MaxLifetime = cmp.Or(p.MaxLifetime, defaultMaxLifetime)
	}
	p.Min = max(p.Min, 0)
	if p.Max > 0 {
		p.Min = min(p.Min, p.Max)
	}
	return p
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(field string, value any, rule string) {
		errs = append(errs, fmt.Errorf("resolver: %s is %v: %s", field, value, rule))
	}
	if len(c.Replicas) > maxReplicas {
		bad("Replicas", fmt.Sprintf("%d nodes long", len(c.Replicas)), "must be at most 256")
	}
	names := map[string]int{}
	for i, n := range c.Replicas {
		field := fmt.Sprintf("Replicas[%d]", i)
		name := nameOf(i, n)
		if first, taken := names[name]; taken {
			bad(field+".Name", fmt.Sprintf("%q", name), fmt.Sprintf("must differ from that of Replicas[%d]", first))
		}
		names[name] = i
		if name == primaryName {
			bad(field+".Name", fmt.Sprintf("%q", name), "is the name of what gorm.Open connected to")
		}
		if len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
			bad(field+".Name", fmt.Sprintf("%q", name), "must be at most 64 bytes without blanks and control characters")
		}
		switch {
		case n.DSN == "" && n.Dialector == nil:
			bad(field, "without DSN and Dialector", "needs one of them")
		case n.DSN != "" && n.Dialector != nil:
			bad(field, "with both DSN and Dialector", "needs one of them")
		case n.DSN != "":
			if _, err := pgx.ParseConfig(n.DSN); err != nil {
				bad(field+".DSN", "set, but not readable"+dsnFault(err), "must be a connection string that pgx.ParseConfig accepts")
			}
		}
		if n.Weight > maxWeight {
			bad(field+".Weight", n.Weight, "must be at most 65536")
		}
	}
	if c.MaxLag < 0 {
		bad("MaxLag", c.MaxLag, "must not be negative; zero is the default of 5s")
	}
	if c.Pool.Max < 0 {
		bad("Pool.Max", c.Pool.Max, "must not be negative; zero is the default of 50")
	}
	if c.Pool.Max > 0 && c.Pool.Min > c.Pool.Max {
		bad("Pool.Min", c.Pool.Min, fmt.Sprintf("must not exceed Pool.Max, which is %d", c.Pool.Max))
	}
	if c.Probe.Interval != 0 && c.Probe.Interval < minInterval {
		bad("Probe.Interval", c.Probe.Interval, "must be at least 1ms; zero is the default of 250ms")
	}
	if c.Probe.Timeout != 0 && c.Probe.Timeout < minInterval {
		bad("Probe.Timeout", c.Probe.Timeout, "must be at least 1ms; zero is the default of 250ms")
	}
	if c.WithoutPrimary > Strict {
		bad("WithoutPrimary", c.WithoutPrimary, "must be Freeze or Strict")
	}
	return errors.Join(errs...)
}

package testbed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Node is one Postgres server of a [Cluster]. Its methods may be called from
// several goroutines; those that take a context block until what they name is
// true, for as long as ctx lives.
type Node struct {
	cluster  *Cluster
	name     string
	port     int
	data     string
	settings map[string]string
	proc     *process
	// link stands between this node's WAL receiver and its upstream.
	link *Proxy
}

func newNode(c *Cluster, name string, settings map[string]string) (*Node, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	n := &Node{cluster: c, name: name, port: port, settings: settings, data: filepath.Join(c.folder.path, name)}
	n.proc = &process{
		name: "postgres " + name, path: c.bin.path("postgres"), args: []string{"-D", n.data},
		dir: c.folder.path, logPath: filepath.Join(c.folder.path, name+".log"), cred: c.cred,
		// An immediate shutdown: the postmaster takes its children along.
		deathSig: syscall.SIGQUIT,
		children: childrenOf,
	}
	// A node without an upstream points at itself: it never connects.
	n.link, err = StartProxy(n.Addr())
	return n, err
}

// Name returns the node's name: "primary", "replica1", … A node keeps it when
// its role changes. It is also the cluster_name and the application_name of
// its WAL receiver in the primary's pg_stat_replication.
func (n *Node) Name() string { return n.name }

// Port returns the node's TCP port on 127.0.0.1. It stays the same over
// restarts.
func (n *Node) Port() int { return n.port }

// Addr returns "127.0.0.1:port", the address to put a [Proxy] in front of.
func (n *Node) Addr() string { return address(n.port) }

// DSN returns a URL for the database as the superuser postgres. An empty db
// means "postgres".
func (n *Node) DSN(db string) string { return DSN(n.Addr(), db) }

// DSN is [Node.DSN] for a node behind another address, such as a [Proxy]'s.
func DSN(addr, db string) string {
	if db == "" {
		db = "postgres"
	}
	return "postgres://postgres@" + addr + "/" + db + "?sslmode=disable"
}

// Conn opens a connection to the database, "postgres" if db is empty. The
// caller closes it.
func (n *Node) Conn(ctx context.Context, db string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, n.DSN(db))
	if err != nil {
		return nil, fmt.Errorf("testbed: connect to %s: %w", n.name, err)
	}
	return conn, nil
}

// Exec runs one statement on a connection of its own.
func (n *Node) Exec(ctx context.Context, db, sql string, args ...any) error {
	return n.with(ctx, db, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// with lends f a connection.
func (n *Node) with(ctx context.Context, db string, f func(*pgx.Conn) error) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	conn, err := n.Conn(ctx, db)
	if err != nil {
		return err
	}
	err = f(conn)
	// ctx may have ended, and closing must not wait for a frozen server: an
	// ended context makes pgx drop the socket at once.
	_ = conn.Close(ctx)
	if err != nil {
		return fmt.Errorf("testbed: %s: %w", n.name, err)
	}
	return nil
}

// Start starts a stopped node and waits until it answers. It comes back in the
// role it had; after [Node.StopImmediate] it first recovers from its WAL.
func (n *Node) Start(ctx context.Context) error {
	if err := n.proc.start(); err != nil {
		return err
	}
	return until(ctx, n.name+" to answer", func(ctx context.Context) (bool, error) {
		if !n.proc.alive() {
			return false, fatalError{fmt.Errorf("it ended; log: %s", n.Log())}
		}
		conn, err := n.Conn(ctx, "")
		if err != nil {
			return false, err
		}
		return true, conn.Close(ctx)
	})
}

// StopFast ends all sessions, writes a checkpoint and stops (pg_ctl stop -m
// fast). A primary first sends its WAL to the replicas that stream.
func (n *Node) StopFast() error { return n.proc.stop(syscall.SIGINT) }

// StopImmediate stops the node as a crash of its process would (pg_ctl stop -m
// immediate): no checkpoint, nothing more sent.
func (n *Node) StopImmediate() error { return n.proc.stop(syscall.SIGQUIT) }

// Freeze stops the node's processes where they stand (SIGSTOP). Connections
// stay open, new ones are still accepted by the kernel, none gets an answer.
func (n *Node) Freeze() error { return n.proc.freeze() }

// Thaw continues a frozen node.
func (n *Node) Thaw() error { return n.proc.thaw() }

// Running reports whether the node's process exists, frozen or not.
func (n *Node) Running() bool { return n.proc.alive() }

// Log returns the last lines of the node's log.
func (n *Node) Log() string { return n.proc.log() }

// Set changes a setting of this node alone (ALTER SYSTEM and a reload), for
// example recovery_min_apply_delay to "2s". It lasts until [Node.RestartAsStandby].
// Settings that need a restart take effect with the next Start.
func (n *Node) Set(ctx context.Context, setting, value string) error {
	return n.with(ctx, "", func(conn *pgx.Conn) error {
		quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
		_, err := conn.Exec(ctx, "ALTER SYSTEM SET "+pgx.Identifier{setting}.Sanitize()+" = "+quoted)
		if err == nil {
			_, err = conn.Exec(ctx, "SELECT pg_reload_conf()")
		}
		return err
	})
}

// writeConfig writes the node's whole postgresql.conf.
func (n *Node) writeConfig() error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(n.port),
		"unix_socket_directories": "",
		"cluster_name":            n.name,
		"max_connections":         "200",
		"shared_buffers":          "16MB",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"log_line_prefix":         "%m [%p] ",
		"jit":                     "off",
		// Speed instead of durability.
		"fsync":              "off",
		"full_page_writes":   "off",
		"wal_init_zero":      "off",
		"checkpoint_timeout": "1h",
		"max_wal_size":       "1GB",
		"min_wal_size":       "16MB",
		// A vacuum that comes by itself cancels reads on replicas.
		"autovacuum": "off",
		// Replication. The primary keeps WAL by size rather than by slots, so
		// that it also suffices for whoever follows a promoted replica.
		"wal_level":                    "replica",
		"max_wal_senders":              "20",
		"wal_keep_size":                "512MB",
		"hot_standby":                  "on",
		"recovery_target_timeline":     "latest",
		"wal_retrieve_retry_interval":  "50ms",
		"wal_receiver_status_interval": "1s",
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable application_name=%s",
			n.link.Port(), n.name),
	}
	maps.Copy(settings, n.settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return errors.Join(n.writeFile("postgresql.conf", b.String()), n.writeFile("postgresql.auto.conf", ""))
}

func (n *Node) writeFile(name, content string) error {
	path := filepath.Join(n.data, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return fmt.Errorf("testbed: configure %s: %w", n.name, err)
	}
	if err := chown(path, n.cluster.cred); err != nil {
		return fmt.Errorf("testbed: configure %s: %w", n.name, err)
	}
	return nil
}

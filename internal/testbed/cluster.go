package testbed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// ClusterConfig says what [StartCluster] starts. The zero value is a primary
// without replicas.
type ClusterConfig struct {
	// Replicas is the number of streaming replicas, 0 to 8.
	Replicas int
	// Settings are added to every node's postgresql.conf and win over the
	// defaults of this package: {"synchronous_commit": "off"}.
	Settings map[string]string
}

// Cluster is a Postgres primary with its streaming replicas. It may be used
// from several goroutines.
type Cluster struct {
	folder  *folder
	bin     binaries
	cred    *syscall.Credential
	nodes   []*Node
	primary atomic.Pointer[Node]
	close   func() error
}

// StartCluster starts a primary and its replicas and returns when every
// replica streams and all of them answer; about one second on two cores. ctx
// bounds the start only. The caller closes the cluster.
//
// Run as root it starts the servers as the operating system's user postgres,
// because Postgres refuses to run as root.
func StartCluster(ctx context.Context, cfg ClusterConfig) (_ *Cluster, err error) {
	if cfg.Replicas < 0 || cfg.Replicas > 8 {
		return nil, fmt.Errorf("testbed: ClusterConfig.Replicas = %d: must be between 0 and 8", cfg.Replicas)
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	c := &Cluster{}
	if c.bin, err = postgresBinaries(); err != nil {
		return nil, err
	}
	if c.cred, err = postgresUser(); err != nil {
		return nil, err
	}
	if c.folder, err = newFolder(c.cred); err != nil {
		return nil, err
	}
	c.close = sync.OnceValue(c.closeAll)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()

	for i := range 1 + cfg.Replicas {
		name := "primary"
		if i > 0 {
			name = "replica" + strconv.Itoa(i)
		}
		n, err := newNode(c, name, maps.Clone(cfg.Settings))
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	primary := c.nodes[0]
	c.primary.Store(primary)
	if err := c.initialize(ctx, primary); err != nil {
		return nil, err
	}
	// The replicas are cold copies: before its first start the primary's
	// folder is a consistent backup, and copying it beats pg_basebackup.
	err = each(c.nodes, func(n *Node) error {
		if n != primary {
			if err := c.run(ctx, "cp", "-R", primary.data, n.data); err != nil {
				return err
			}
			if err := n.link.SetTarget(primary.Addr()); err != nil {
				return err
			}
			if err := n.writeFile("standby.signal", ""); err != nil {
				return err
			}
		}
		return n.writeConfig()
	})
	if err != nil {
		return nil, err
	}
	if err := each(c.nodes, func(n *Node) error { return n.Start(ctx) }); err != nil {
		return nil, err
	}
	return c, each(c.nodes[1:], func(n *Node) error { return n.waitStreaming(ctx) })
}

// initialize makes n's data directory. Small WAL segments keep it, and every
// copy of it, small.
func (c *Cluster) initialize(ctx context.Context, n *Node) error {
	return c.run(ctx, c.bin.path("initdb"), "--pgdata", n.data, "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--wal-segsize", "4", "--no-sync", "--no-instructions")
}

// run runs a program to its end as the servers' user.
func (c *Cluster) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.folder.path
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = sysProcAttr(c.cred, 0)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("testbed: run %s: %w: %s", filepath.Base(name), err, out)
	}
	return nil
}

// Primary returns the node that is the primary as far as this package's own
// calls tell: the first node, or the one promoted last.
func (c *Cluster) Primary() *Node { return c.primary.Load() }

// Nodes returns all nodes in the order of their start: the first primary,
// then the first replicas.
func (c *Cluster) Nodes() []*Node { return append([]*Node(nil), c.nodes...) }

// Replicas returns all nodes but the primary.
func (c *Cluster) Replicas() []*Node {
	var replicas []*Node
	for _, n := range c.nodes {
		if n != c.Primary() {
			replicas = append(replicas, n)
		}
	}
	return replicas
}

// Replica returns Replicas()[i]; it panics when there are fewer.
func (c *Cluster) Replica(i int) *Node { return c.Replicas()[i] }

// WaitCaughtUp waits until every running replica has replayed what the primary
// had written when the call began. It waits until ctx ends for a replica that
// is frozen, cut off or paused.
func (c *Cluster) WaitCaughtUp(ctx context.Context) error {
	lsn, err := c.Primary().LSN(ctx)
	if err != nil {
		return err
	}
	return each(c.Replicas(), func(n *Node) error {
		if !n.proc.alive() {
			return nil
		}
		return n.WaitReplayed(ctx, lsn)
	})
}

// Close stops all nodes and removes their files. It is idempotent.
func (c *Cluster) Close() error { return c.close() }

func (c *Cluster) closeAll() error {
	// Nothing of a node is needed any more, so there is no reason to let it
	// write a checkpoint.
	err := each(c.nodes, func(n *Node) error {
		return errors.Join(n.proc.stop(syscall.SIGQUIT), n.link.Close())
	})
	return errors.Join(err, c.folder.remove())
}

// postgresUser returns the user to run Postgres as: nil for the present one.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("testbed: Postgres does not run as root: %w: %w", ErrNotInstalled, err)
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	if err := cmp.Or(errUID, errGID); err != nil {
		return nil, fmt.Errorf("testbed: user postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// each calls f for all items at once and waits for all of them.
func each[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = f(item)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

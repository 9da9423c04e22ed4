package cachehook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// server is what a Redis tells of itself.
type server struct {
	id      string // random, taken when it starts; empty: it does not tell
	version string
	cluster bool
	replica bool

	addr string // of a node of a Cluster

	// Its history has a name, and a length in bytes. A server that has succeeded another
	// one has that one's history before its own, up to where it branched off.
	history, before  string
	offset, branched int64
}

// errReplica means that what was asked is no master, any more perhaps.
var errReplica = errors.New("the server is a replica")

// askServer adds the questions to a pipeline; the answer is there when it has run.
func askServer(ctx context.Context, p redis.Pipeliner) func() server {
	general, replication := p.Info(ctx, "server"), p.Info(ctx, "replication")
	return func() server {
		info := general.Val() + "\n" + replication.Val()
		s := server{id: infoField(info, "run_id"), version: infoField(info, "redis_version")}
		// Valkey calls it server_mode where it does not pass for Redis.
		s.cluster = infoField(info, "redis_mode") == "cluster" || infoField(info, "server_mode") == "cluster"
		s.replica = infoField(info, "role") == "slave"
		s.history, s.before = infoField(info, "master_replid"), infoField(info, "master_replid2")
		s.offset, s.branched = infoNumber(info, "master_repl_offset"), infoNumber(info, "second_repl_offset")
		return s
	}
}

func infoField(info, name string) string {
	_, after, _ := strings.Cut("\n"+info, "\n"+name+":")
	value, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(value)
}

// infoNumber returns -1 for what is not there.
func infoNumber(info, name string) int64 {
	n, err := strconv.ParseInt(infoField(info, name), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// oldest is the first major version that has what is asked: sharded messages,
// scripts that a replica refuses, and EXPIRE with NX.
const oldest = 7

// fits reports why a server cannot be used by that client.
func (s server) fits(client redis.UniversalClient) error {
	head, _, _ := strings.Cut(s.version, ".")
	if major, err := strconv.Atoi(head); err == nil && major < oldest {
		return fmt.Errorf("the server is Redis %s: must be %d or later", s.version, oldest)
	}
	_, sharded := client.(clusterClient)
	switch {
	case s.cluster && !sharded:
		return fmt.Errorf("the server belongs to a Cluster, and Config.Redis is a %T: must be a *redis.ClusterClient", client)
	case !s.cluster && sharded:
		return fmt.Errorf("the server belongs to no Cluster, and Config.Redis is a %T: must be a *redis.Client", client)
	}
	return nil
}

// servers asks the server, or the masters of a Cluster, who they are, and for the
// name that is written. With an error there may be what was told nevertheless.
func (w *witness) servers(ctx context.Context) (all []server, written string, err error) {
	cluster, ok := w.client.(clusterClient)
	if !ok {
		p := w.client.Pipeline()
		tell, get := askServer(ctx, p), p.Get(ctx, w.key)
		if _, err = p.Exec(ctx); errors.Is(err, redis.Nil) {
			err = nil
		}
		return []server{tell()}, get.Val(), err
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		p := node.Pipeline()
		tell := askServer(ctx, p)
		if _, err := p.Exec(ctx); err != nil {
			return err
		}
		s := tell()
		s.addr = addrOf(node)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, s)
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	written, err = getScript.Run(ctx, cluster, []string{w.key}).Text()
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	return all, written, err
}

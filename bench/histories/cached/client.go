package cached

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// cacheName leads all keys.
const cacheName = "histories"

// split has its subscriptions on connections of another client, so that they
// can fail on their own.
type split struct {
	*redis.Client
	messages *redis.Client
}

func (s split) Subscribe(ctx context.Context, channels ...string) *redis.PubSub {
	return s.messages.Subscribe(ctx, channels...)
}

// splitCluster is that of a Cluster, in which subscriptions are at nodes.
type splitCluster struct {
	*redis.ClusterClient
	messages *redis.ClusterClient
}

func (s splitCluster) MasterForKey(ctx context.Context, key string) (*redis.Client, error) {
	// It learns of a move by asking.
	_ = s.messages.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
	return s.messages.MasterForKey(ctx, key)
}

// client goes to the proxies in front of the servers.
func (w *worker) client() (client redis.UniversalClient, closeAll func()) {
	if w.cfg.Redis == Cluster {
		commands := w.clusterClient(w.cfg.Commands)
		if !w.cfg.Split {
			return commands, func() { _ = commands.Close() }
		}
		messages := w.clusterClient(w.cfg.Messages)
		return splitCluster{commands, messages}, func() { _ = commands.Close(); _ = messages.Close() }
	}
	commands := w.failoverClient(w.cfg.Commands)
	if !w.cfg.Split {
		return commands, func() { _ = commands.Close() }
	}
	messages := w.failoverClient(w.cfg.Messages)
	return split{commands, messages}, func() { _ = commands.Close(); _ = messages.Close() }
}

// failoverClient asks the sentinels for the master, and goes to the proxy in
// front of it.
func (w *worker) failoverClient(proxies map[string]string) *redis.Client {
	return redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: testbed.SentinelMaster, SentinelAddrs: w.cfg.Addrs, Dialer: dialer(proxies),
	})
}

func (w *worker) clusterClient(proxies map[string]string) *redis.ClusterClient {
	return redis.NewClusterClient(&redis.ClusterOptions{Addrs: w.cfg.Addrs, Dialer: dialer(proxies)})
}

// dialer goes to the proxies of the addresses that have one.
func dialer(proxies map[string]string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if proxy, ok := proxies[addr]; ok {
			addr = proxy
		}
		d := net.Dialer{Timeout: 500 * time.Millisecond}
		return d.DialContext(ctx, network, addr)
	}
}

package resolver

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// resolveEvery is how often a node's name is resolved without a reason. New
// connections resolve it anyway; this is for a node all of whose connections
// live on while its name already means another server.
const resolveEvery = 5 * time.Second

// names resolves the host names of one node, keeping the last good answer: one
// that is empty, or fails, while a name server is restarted, is none. It is safe
// for concurrent use; nil has nothing to resolve.
type names struct {
	hosts  []string
	lookup pgconn.LookupFunc

	mu   sync.Mutex // guards last
	last map[string][]string
}

// namesOf are the names in a connection's configuration, nil when there are only
// addresses and sockets.
func namesOf(cfg *pgx.ConnConfig) *names {
	hosts := []string{cfg.Host}
	for _, f := range cfg.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	slices.Sort(hosts)
	hosts = slices.DeleteFunc(slices.Compact(hosts), func(h string) bool {
		return h == "" || strings.HasPrefix(h, "/") || strings.HasPrefix(h, "@") || net.ParseIP(h) != nil
	})
	if len(hosts) == 0 || cfg.LookupFunc == nil {
		return nil
	}
	return &names{hosts: hosts, lookup: cfg.LookupFunc, last: map[string][]string{}}
}

// resolve is a pgconn.LookupFunc. What it learns is compared by changed alone, so
// that a change is told although a new connection was the first to meet it.
func (n *names) resolve(ctx context.Context, host string) ([]string, error) {
	addrs, err := n.lookup(ctx, host)
	n.mu.Lock()
	defer n.mu.Unlock()
	last := n.last[host]
	switch good := err == nil && len(addrs) > 0; {
	case !good && len(last) > 0:
		return last, nil
	case good && len(last) == 0:
		n.last[host] = slices.Clone(addrs)
	}
	return addrs, err
}

// changed resolves all names and reports whether one of them means other servers
// than before. Servers that share a name and are told in another order, or only
// some of them, are no change: as long as one address stands in both answers.
func (n *names) changed(ctx context.Context) bool {
	if n == nil {
		return false
	}
	change := false
	for _, host := range n.hosts {
		addrs, err := n.lookup(ctx, host)
		if err != nil || len(addrs) == 0 {
			continue
		}
		n.mu.Lock()
		last := n.last[host]
		if len(last) > 0 && !slices.ContainsFunc(addrs, func(a string) bool { return slices.Contains(last, a) }) {
			change = true
		}
		n.last[host] = slices.Clone(addrs)
		n.mu.Unlock()
	}
	return change
}

// follow looks whether n's name means another server by now, and has all its
// connections made anew then.
func (r *Resolver) follow(n *node) {
	ctx, cancel := context.WithTimeout(r.ctx, resolveEvery)
	defer cancel()
	if !n.names.changed(ctx) {
		return
	}
	r.log([]change{{n, slog.LevelInfo, "node's name means another server", nil}})
	n.moved.Store(true)
	r.renew(n)
	n.wake()
}

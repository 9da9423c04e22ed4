package cachehook

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Redis that was restored from a snapshot, or a replica that was promoted
// without the last writes, brings back old stamps together with the entries
// that were made under them: nothing in its answers shows it. So a key names
// the server (the servers of a Cluster) for which everything cached is known to
// be sound. Who finds another server gives the tags on which every entry
// depends new stamps, and then writes the new name.
const (
	watchEvery = 500 * time.Millisecond // while nothing looks wrong
	watchPause = 25 * time.Millisecond  // between two looks
)

// witness looks, regularly and whenever something was wrong with Redis, whether
// it is the same server still. What counts is the name in Redis: who bumped the
// tags may have ended since. But between that and the moment at which this process
// finds the new server too, the old one may still have taken its writes: those are
// told to the new one again.
type witness struct {
	client  redis.UniversalClient
	key     string
	changed func() error // the server is another one
	missed  func() error // it is, and another process has dealt with that before
	logger  *slog.Logger
	seen    string    // the server's name at the last look; its own goroutine's
	refused sync.Once // the log has said that the server does not tell

	// doubts counts what may mean another server; cleared is that number at the
	// start of the last look that found all well. While they differ no answer
	// of Redis is used.
	doubts, cleared atomic.Uint64
	kick            chan struct{} // has one slot
}

func newWitness(client redis.UniversalClient, key string, logger *slog.Logger) *witness {
	return &witness{client: client, key: key, logger: logger, kick: make(chan struct{}, 1)}
}

// doubt says that Redis may have become another server.
func (w *witness) doubt() {
	w.doubts.Add(1)
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *witness) doubtful() bool { return w.doubts.Load() != w.cleared.Load() }

// run looks until ctx ends.
func (w *witness) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.kick:
		}
		doubts := w.doubts.Load()
		if w.look(ctx) == nil {
			w.cleared.Store(doubts)
		} else {
			w.doubts.Add(1)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchPause):
		}
		next := watchEvery
		if w.doubtful() {
			next = watchPause
		}
		timer.Reset(next)
	}
}

// look compares the server's name with the one that is written in it.
func (w *witness) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	name, written, err := w.names(ctx)
	switch {
	case redis.HasErrorPrefix(err, "NOPERM"), redis.HasErrorPrefix(err, "ERR unknown"), err == nil && name == "":
		w.refused.Do(func() {
			w.logger.Warn("cachehook: Redis does not tell its run_id (INFO server): when it is restored from an older snapshot, old results are served until their TTL", "error", err)
		})
		return nil
	case err != nil:
		return err
	}
	moved := w.seen != "" && w.seen != name
	switch {
	case name == written && moved:
		if err := w.missed(); err != nil {
			return err
		}
		fallthrough
	case name == written:
		w.seen = name
		return nil
	}
	if written != "" || moved { // a Redis without the name holds nothing of before
		if err := w.changed(); err != nil {
			return err
		}
		w.logger.Warn("cachehook: Redis is another server than before and may hold older data: all that was cached is invalid")
	}
	if err := w.client.Set(ctx, w.key, name, 0).Err(); err != nil {
		return err
	}
	w.seen = name
	return nil
}

// names returns the server's name, and the one that is written in it.
func (w *witness) names(ctx context.Context) (name, written string, err error) {
	if cluster, ok := w.client.(*redis.ClusterClient); ok {
		return w.clusterNames(ctx, cluster)
	}
	p := w.client.Pipeline()
	info, get := p.Info(ctx, "server"), p.Get(ctx, w.key)
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return "", "", err
	}
	return runID(info.Val()), get.Val(), nil
}

// clusterNames is names for a Cluster; its masters together have one name.
func (w *witness) clusterNames(ctx context.Context, cluster *redis.ClusterClient) (name, written string, err error) {
	var mu sync.Mutex
	var ids []string
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		info, err := node.Info(ctx, "server").Result()
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, runID(info))
		return err
	})
	if err != nil {
		return "", "", err
	}
	written, err = getScript.Run(ctx, cluster, []string{w.key}).Text()
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	if slices.Contains(ids, "") {
		ids = nil
	}
	slices.Sort(ids)
	return strings.Join(ids, " "), written, err
}

// runID finds the random name that a server takes when it starts.
func runID(info string) string {
	_, after, _ := strings.Cut(info, "\nrun_id:")
	id, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(id)
}

// serverChanged gives the tags on which every entry depends new stamps.
func (c *Cache) serverChanged() error {
	if err := c.names.lose(context.Background()); err != nil {
		return err
	}
	tags := []string{everyTag, schemaTag, serverTag}
	c.catalog.forget()
	c.mirror.flush()
	cells := c.hold(tags)
	err := c.store.bump(context.Background(), tags, "")
	c.release(cells, true) // on an error the doubt stays
	return err
}

// serverMissed tells the server again what this process has told another one lately.
func (c *Cache) serverMissed() error {
	tags, known := c.recent.tags(time.Now())
	if !known {
		return c.serverChanged()
	}
	c.mirror.flush()
	if len(tags) == 0 {
		return nil
	}
	return c.store.bump(context.Background(), tags, "")
}

// doubtful reports whether what Redis answers cannot be used at present.
func (c *Cache) doubtful() bool { return c.witness != nil && c.witness.doubtful() }

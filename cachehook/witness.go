package cachehook

import (
	"cmp"
	"context"
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
	// continued: it is, and has what the last one had when it was seen. It reports
	// whether that was enough to know.
	continued func(ctx context.Context, last sighting, roster string) (known bool, err error)
	roster    func(ctx context.Context, servers []server) string // which of them has the roster
	logger    *slog.Logger
	last      sighting  // the last look that found all well; its own goroutine's
	refused   sync.Once // the log has said that the server does not tell
	replica   int       // looks in a row that found one

	unfit atomic.Pointer[error] // why Redis cannot be used; nil: it was not seen yet
	known chan struct{}         // closed when it has been seen
	once  sync.Once             // closes known

	// doubts counts what may mean another server; cleared is that number at the
	// start of the last look that found all well. While they differ no answer
	// of Redis is used.
	doubts, cleared atomic.Uint64
	kick            chan struct{} // has one slot
	every           atomic.Int64  // nanoseconds between looks: watchEvery
}

func newWitness(client redis.UniversalClient, key string, logger *slog.Logger) *witness {
	w := &witness{client: client, key: key, logger: logger, kick: make(chan struct{}, 1), known: make(chan struct{})}
	w.every.Store(int64(watchEvery))
	return w
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
		next := time.Duration(w.every.Load())
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
	began := time.Now()
	servers, written, err := w.servers(ctx)
	name := nameOfAll(servers)
	switch {
	case redis.HasErrorPrefix(err, "NOPERM"), redis.HasErrorPrefix(err, "ERR unknown"), err == nil && name == "":
		w.refused.Do(func() {
			w.logger.Warn("cachehook: Redis does not tell its run_id (INFO server): when it is restored from an older snapshot, old results are served until their TTL", "error", err)
		})
		w.judged(nil)
		return nil
	case err != nil && name == "":
		return err
	}
	// First: to a client of another kind its key may be elsewhere.
	if err := cmp.Or(w.judge(servers), err); err != nil {
		return err
	}
	moved := w.last.name != "" && w.last.name != name
	now := sighting{name, began, servers, w.roster(ctx, servers)}
	switch {
	case name == written && moved:
		if err := w.missed(); err != nil {
			return err
		}
		fallthrough
	case name == written:
		w.last = now
		return nil
	}
	if written != "" || moved { // a Redis without the name holds nothing of before
		if err := w.replaced(ctx, now, written); err != nil {
			return err
		}
	}
	if err := w.client.Set(ctx, w.key, name, 0).Err(); err != nil {
		return err
	}
	w.last = now
	return nil
}

// replaced deals with servers that are others than before.
func (w *witness) replaced(ctx context.Context, now sighting, written string) error {
	if came, ok := succeeded(w.last.servers, now.servers); ok && written == w.last.name {
		known, err := w.continued(ctx, w.last, now.roster)
		if err != nil {
			return err
		}
		if known {
			w.logger.Warn("cachehook: masters of the Redis Cluster were replaced: what was written in the last seconds is invalid", "masters", len(came))
			return nil
		}
	}
	if err := w.changed(); err != nil {
		return err
	}
	w.logger.Warn("cachehook: Redis is another server than before and may hold older data: all that was cached is invalid")
	return nil
}

// nameOfAll is the servers' name, that of all masters of a Cluster together; empty when
// one does not tell.
func nameOfAll(servers []server) string {
	ids := make([]string, len(servers))
	for i, s := range servers {
		if ids[i] = s.id; s.id == "" {
			return ""
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// judge reports why the servers cannot be used. A replica is asked for a while after
// a failover; of what does not mend itself the log tells.
func (w *witness) judge(servers []server) error {
	for _, s := range servers {
		if err := s.fits(w.client); err != nil {
			w.judged(err)
			return err
		}
	}
	for _, s := range servers {
		if s.replica {
			if w.replica++; w.replica == replicaLooks {
				w.logger.Warn("cachehook: Redis is a replica: nothing is cached until Config.Redis reaches its master")
			}
			return errReplica
		}
	}
	if w.replica >= replicaLooks {
		w.logger.Info("cachehook: Redis is a master again")
	}
	w.replica = 0
	w.judged(nil)
	return nil
}

// replicaLooks is how many looks find a replica before the log tells of it.
const replicaLooks = 100

// judged notes the first verdict, and whatever changes it.
func (w *witness) judged(fault error) {
	before := w.unfit.Swap(&fault)
	switch {
	case fault != nil && (before == nil || *before == nil):
		w.logger.Error("cachehook: nothing is cached, and writes count as those that Redis was not told of", "error", fault)
	case fault == nil && before != nil && *before != nil:
		w.logger.Info("cachehook: Redis can be used now")
	}
	w.once.Do(func() { close(w.known) })
}

// fault returns why Redis cannot be used at all, or nil.
func (w *witness) fault() error {
	if f := w.unfit.Load(); f != nil {
		return *f
	}
	return nil
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
	_, err := c.store.bump(context.Background(), tags, "", false)
	c.release(cells, true) // on an error the doubt stays
	return err
}

// serverMissed tells the server again what this process has told another one lately.
func (c *Cache) serverMissed() error {
	now := time.Now()
	tags, known := c.recent.tags(now, now.Add(-rememberFor))
	if !known {
		return c.serverChanged()
	}
	return c.tellAgain(tags)
}

// doubtful reports whether what Redis answers cannot be used at present.
func (c *Cache) doubtful() bool { return c.witness != nil && c.witness.doubtful() }

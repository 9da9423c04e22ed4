package cachehook

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// sighting is what a look found that found all well.
type sighting struct {
	name    string    // of the servers together; empty: there was none
	began   time.Time // before the look
	servers []server
	roster  string // the server that has the roster
}

// succeeded reports whether every server of before that is gone has left its data to
// one that has come, all of it that it had then, and returns those that have come. A
// replica that is promoted, or a master that starts again, says under which history
// it goes on and from where: see master_replid2 and second_repl_offset of INFO.
func succeeded(before, now []server) (came []server, ok bool) {
	var gone []server
	there := func(list []server, s server) bool {
		return slices.ContainsFunc(list, func(o server) bool { return o.id == s.id })
	}
	for _, s := range before {
		if !there(now, s) {
			gone = append(gone, s)
		}
	}
	for _, s := range now {
		if !there(before, s) {
			came = append(came, s)
		}
	}
	if len(gone) != len(came) {
		return nil, false
	}
	for _, s := range came {
		i := slices.IndexFunc(gone, func(g server) bool {
			return g.history != "" && g.history == s.before && s.branched > g.offset
		})
		if i < 0 {
			return nil, false
		}
		gone = slices.Delete(gone, i, i+1)
	}
	return came, true
}

// continued deals with masters of a Cluster that others have succeeded, which have
// what was written until the last look that found all well. What was written since is
// told again. Its writers may have ended: but whatever was changed had been told of
// before, also that it was about to be, and this process has heard it if its
// subscription has gone on, by another shard, from before the marks of then to now.
// It reports false where that is not known.
func (c *Cache) serverContinued(ctx context.Context, last sighting, roster string) (known bool, err error) {
	if c.channel == nil || roster == "" {
		return false, nil
	}
	if !c.channel.caughtUp(ctx) {
		return false, nil
	}
	since := last.began.Add(-2 * c.markTTL) // a mark is told of again before it runs out
	if whole := c.whole.Load(); whole == nil || whole.After(since) {
		return false, nil
	}
	now := time.Now()
	own, ownKnown := c.recent.tags(now, since)
	others, othersKnown := c.heardOf.tags(now, since)
	if !ownKnown || !othersKnown {
		return false, nil
	}
	if roster != last.roster {
		if err := c.names.lose(ctx); err != nil {
			return false, err
		}
	}
	return true, c.tellAgain(append(own, others...))
}

// tellAgain bumps tags on a server that may not know of it.
func (c *Cache) tellAgain(tags []string) error {
	c.mirror.flush()
	if len(tags) == 0 {
		return nil
	}
	tags = compactTags(tags)
	if slices.Contains(tags, schemaTag) {
		c.catalog.forget()
	}
	for some := range slices.Chunk(tags, maxAgain) { // each has its own time
		cells := c.hold(some)
		_, err := c.store.bump(context.Background(), some, "", false)
		c.release(cells, true) // on an error the doubt stays
		if err != nil {
			return err
		}
	}
	return nil
}

const maxAgain = 128

// rosterAt tells which of the servers has the roster; empty: it is not known.
func (c *Cache) rosterAt(ctx context.Context, servers []server) string {
	cluster, ok := c.cfg.Redis.(clusterClient)
	if !ok {
		return ""
	}
	node, err := cluster.MasterForKey(ctx, c.names.key)
	if err != nil {
		return ""
	}
	i := slices.IndexFunc(servers, func(s server) bool { return s.addr == addrOf(node) })
	if i < 0 {
		return ""
	}
	return servers[i].id
}

func addrOf(node *redis.Client) string { return node.Options().Addr }

package cachehook

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// onMaster leads a script that the server takes for one that writes: a replica
// sends it on to its master though the connection says READONLY, and a master that
// has lost the majority refuses it.
const onMaster = "#!lua flags=allow-oom\n"

// shard says and proves what the channel of a Cluster carries. Messages that all
// nodes are told go over the bus between them, in no order with anything; so they
// go to a channel of one shard, published by its master after the tags have been
// marked or bumped in their own slots.
//
// A subscription there may miss some and go on: while the slot moves, a message is
// taken by the node that it moves to, and a move can be called off. So messages
// carry numbers, counted in a key of the channel's slot, and a ping carries the
// number of the last one. Both are scripts on that key, so that they go the same
// way at any time. Who misses a number forgets what it knew. And a ping is published
// only where its subscriber is connected: one that has stayed with a replica hears by
// way of the bus.
type shard struct {
	client  clusterClient
	guard   *guard // its own: this shard may live while a tag's does not
	counter string // key
	channel string
	pings   string // leads the names of the sessions' channels of pings

	sessions uint64 // so far; the channel's goroutine's
}

var (
	// KEYS[1] counter; ARGV channel, message, a name for a new counter.
	sayScript = redis.NewScript(onMaster + `
local born = redis.call('HGET', KEYS[1], 'b')
if not born then
  born = ARGV[3]
  redis.call('HSET', KEYS[1], 'b', born, 'n', 0)
end
local n = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'n', 1))
return redis.call('SPUBLISH', ARGV[1], born .. ':' .. n .. ' ' .. ARGV[2])`)

	// KEYS[1] counter; ARGV channel of pings, ping, a name for a new counter. Returns 0
	// where its subscriber is not connected to this node.
	pingScript = redis.NewScript(onMaster + `
if redis.call('SPUBLISH', ARGV[1], '') == 0 then
  return 0
end
local at = redis.call('HMGET', KEYS[1], 'b', 'n')
if not at[1] then
  at = {ARGV[3], '0'}
  redis.call('HSET', KEYS[1], 'b', at[1], 'n', 0)
end
return redis.call('SPUBLISH', ARGV[1], at[1] .. ':' .. at[2] .. ' ' .. ARGV[2])`)

	// KEYS[1] a key. Returns what it holds, by its master.
	getScript = redis.NewScript(onMaster + `return redis.call('GET', KEYS[1])`)
)

// errElsewhere means that a ping went to a node that the subscription is not at.
var errElsewhere = errors.New("the channel's slot is at another node now")

// newShard makes the channel of that name. The braces put what it needs into one
// slot, and names into different ones.
func newShard(client clusterClient, prefix, name, salt string, budget time.Duration, logger *slog.Logger) *shard {
	slot := prefix + "{" + name + "}:"
	return &shard{
		client: client, guard: newGuard(budget, logger.With("of", "the invalidation channel's shard")),
		counter: slot + "messages", channel: slot + "tags", pings: slot + "ping:" + salt + ":",
	}
}

// say publishes a message.
func (s *shard) say(ctx context.Context, text string) error {
	err := s.guard.do(ctx, func(ctx context.Context) error {
		return sayScript.Run(ctx, s.client, []string{s.counter}, s.channel, text, mint().String()).Err()
	})
	if err != nil {
		return redisError("tell", err)
	}
	return nil
}

// open subscribes at the node that has the channel now.
func (s *shard) open(ctx context.Context) (*line, error) {
	// The client learns of a move by being refused, which nobody does here: this reads
	// the map of slots anew. Without an answer the one of before has to do.
	_ = s.client.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
	node, err := s.client.MasterForKey(ctx, s.channel)
	if err != nil {
		return nil, redisError("find the channel", err)
	}
	s.sessions++
	pings := s.pings + strconv.FormatUint(s.sessions, 10)
	heard := count{}
	return &line{
		begun: make(chan struct{}),
		sub:   node.SSubscribe(ctx, s.channel, pings),
		ping:  func(ctx context.Context, ping string) error { return s.ping(ctx, pings, ping) },
		read: func(m *redis.Message) (text string, ping, whole bool) {
			ping = m.Channel == pings
			if ping && m.Payload == "" {
				return "", true, true
			}
			at, text := countOf(m.Payload)
			whole = heard.leadsTo(at, ping)
			heard = at
			return text, ping, whole
		},
	}, nil
}

func (s *shard) ping(ctx context.Context, channel, ping string) error {
	n, err := pingScript.Run(ctx, s.client, []string{s.counter}, channel, ping, mint().String()).Int()
	if err == nil && n == 0 {
		err = errElsewhere
	}
	return err
}

// count is a counter's name and how far it has counted.
type count struct {
	born string
	n    uint64
}

// countOf takes a message apart. What it cannot read has no name.
func countOf(payload string) (at count, text string) {
	head, text, _ := strings.Cut(payload, " ")
	born, number, _ := strings.Cut(head, ":")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return count{}, text
	}
	return count{born, n}, text
}

// leadsTo reports whether nothing was said between c, the last that was heard, and
// what comes now. Nothing has been heard before the first: what was known before the
// subscription is forgotten already.
func (c count) leadsTo(now count, ping bool) bool {
	if now.born == "" || c.born == "" {
		return now.born != ""
	}
	if !ping {
		c.n++
	}
	return c == now
}

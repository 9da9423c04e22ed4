package cachehook

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// tagScripts are what is asked of one tag, a hash: field s is its stamp, and a field
// m:ID for each writer that is about to commit holds the time at which that mark runs
// out, by Redis' own clock. Each touches one key, so that tags may lie in any slot of
// a Cluster.
//
// A client that gets no answer sends a command again, and both can arrive, with
// other writes between. So the second half of a stamp is Redis' clock: it is another
// one at each arrival. Otherwise the later arrival would bring back the stamp of the
// first, and with it what was read before those other writes.
type tagScripts struct{ read, birth, mark, bump *redis.Script }

// newTagScripts makes them, with a line that leads them. The client sends scripts to
// masters alone.
func newTagScripts(lead string) *tagScripts {
	return &tagScripts{
		// KEYS[1] tag; ARGV random bytes for a new stamp, the tag's TTL in ms. Returns
		// the stamp and how many marks stand. Whoever meets a mark that has run out
		// mints: the writer may have committed.
		read: redis.NewScript(lead + `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HGETALL', KEYS[1])
local stamp, marks, mint = false, 0, false
for i = 1, #h, 2 do
  if h[i] == 's' then
    stamp = h[i + 1]
  elseif tonumber(h[i + 1]) <= now then
    redis.call('HDEL', KEYS[1], h[i])
    mint = true
  else
    marks = marks + 1
  end
end
if mint or not stamp then
  stamp = string.sub(ARGV[1], 1, 8) .. struct.pack('>I8', t[1] * 1000000 + t[2])
  redis.call('HSET', KEYS[1], 's', stamp)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {stamp, marks}`),

		// KEYS[1] tag; ARGV random bytes for its first stamp, its TTL in ms. It does
		// nothing to a tag that is there.
		birth: redis.NewScript(lead + `
if redis.call('EXISTS', KEYS[1]) == 0 then
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 's', string.sub(ARGV[1], 1, 8) .. struct.pack('>I8', t[1] * 1000000 + t[2]))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1`),

		// KEYS[1] tag; ARGV writer, ms until the mark runs out, the tag's TTL.
		mark: redis.NewScript(lead + `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'm:' .. ARGV[1], string.format('%.0f', now + ARGV[2]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) / 2 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1`),

		// KEYS[1] tag; ARGV writer, random bytes for a new stamp, the tag's TTL. A tag
		// without a stamp needs none: nothing carries it, and the next reader mints
		// one. So rows that are written and never read leave nothing behind.
		bump: redis.NewScript(lead + `
if redis.call('HEXISTS', KEYS[1], 's') == 1 then
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 's', string.sub(ARGV[2], 1, 8) .. struct.pack('>I8', t[1] * 1000000 + t[2]))
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
redis.call('HDEL', KEYS[1], 'm:' .. ARGV[1])
return 1`),
	}
}

var (
	anyServer = newTagScripts("")
	// For a client whose connections say READONLY: a master that has become a replica,
	// and of which the client has not heard yet, would answer what it knows itself.
	masters = newTagScripts(onMaster)
)

// redisStore is the store on Redis.
type redisStore struct {
	client  redis.UniversalClient
	prompt  bool // the client's calls end with their context
	plain   bool // the client reads from masters alone
	scripts *tagScripts
	guard   *guard
	prefix  string // of all keys
	channel string // empty: nobody listens
	shard   *shard // of a Cluster: instead of the channel
	tagTTL  time.Duration
	markTTL time.Duration
	recent  *recent      // what was bumped, or nil
	unfit   func() error // why what is told does not reach all; nil: nobody asks
}

var _ store = (*redisStore)(nil)

func (r *redisStore) tagKey(tag string) string    { return r.prefix + "t:" + tag }
func (r *redisStore) entryKey(name string) string { return r.prefix + "e:" + name }

// pipelined runs the commands that fill adds in one round trip, and once more
// with the scripts' source where a server has not got them.
func (r *redisStore) pipelined(ctx context.Context, op string, fill func(p redis.Pipeliner, run runner)) error {
	err := r.guard.do(ctx, func(ctx context.Context) error { return r.send(ctx, fill) })
	if err != nil {
		return redisError(op, err)
	}
	return nil
}

func (r *redisStore) send(ctx context.Context, fill func(redis.Pipeliner, runner)) error {
	err := r.pipe(ctx, fill, (*redis.Script).EvalSha)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		err = r.pipe(ctx, fill, (*redis.Script).Eval)
	}
	return err
}

type runner func(s *redis.Script, key string, args ...any) *redis.Cmd

func (r *redisStore) pipe(ctx context.Context, fill func(redis.Pipeliner, runner),
	run func(*redis.Script, context.Context, redis.Scripter, []string, ...any) *redis.Cmd,
) error {
	p := r.client.Pipeline()
	fill(p, func(s *redis.Script, key string, args ...any) *redis.Cmd {
		return run(s, ctx, p, []string{key}, args...)
	})
	cmds, err := p.Exec(ctx)
	if err == nil {
		return nil
	}
	var first error
	for _, cmd := range cmds {
		switch err := cmd.Err(); {
		case err == nil, errors.Is(err, redis.Nil):
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			return err
		case first == nil:
			first = err
		}
	}
	if first == nil && len(cmds) == 0 {
		return err
	}
	return first
}

func (r *redisStore) put(ctx context.Context, entry string, payload []byte, ttl time.Duration) error {
	err := r.guard.do(ctx, func(ctx context.Context) error {
		return r.client.Set(ctx, r.entryKey(entry), payload, max(ttl, time.Millisecond)).Err()
	})
	if err != nil {
		return redisError("store", err)
	}
	return nil
}

func (r *redisStore) mark(ctx context.Context, tags []string, writer string, look bool) (glance, error) {
	return r.tell(ctx, "mark", tags, look, func(run runner) {
		for _, tag := range tags {
			run(r.scripts.mark, r.tagKey(tag), writer, r.markTTL.Milliseconds(), r.tagTTL.Milliseconds())
		}
	})
}

func (r *redisStore) bump(ctx context.Context, tags []string, writer string, look bool) (glance, error) {
	if r.recent != nil {
		r.recent.note(time.Now(), tags...)
	}
	return r.tell(ctx, "invalidate", tags, look, func(run runner) {
		for _, tag := range tags {
			fresh := mint()
			run(r.scripts.bump, r.tagKey(tag), writer, fresh[:], r.tagTTL.Milliseconds())
		}
	})
}

func (r *redisStore) unmark(ctx context.Context, tags []string, writer string) error {
	return r.pipelined(ctx, "unmark", func(p redis.Pipeliner, _ runner) {
		for _, tag := range tags {
			p.HDel(context.Background(), r.tagKey(tag), "m:"+writer)
		}
	})
}

// tell runs the scripts and publishes their tags behind them, so that whoever hears
// of the tags and asks finds them marked or bumped. On one server that is one round
// trip, on one connection. On a Cluster it is one to each shard, and then one to the
// channel's; there it is said too when a script has failed, as one shard may be down
// alone: who hears of the tags asks, and does not believe its memory. Rows come
// before their tables; see mirror.learnAll. With look the schema's tag is looked at.
func (r *redisStore) tell(ctx context.Context, op string, tags []string, look bool, scripts func(runner)) (glance, error) {
	text := strings.Join(rowsFirst(tags), tagSeparator)
	var saw func() glance
	err := r.pipelined(ctx, op, func(p redis.Pipeliner, run runner) {
		scripts(run)
		if look {
			saw = r.lookAtSchema(p, run)
		}
		if r.shard == nil && r.channel != "" {
			p.Publish(context.Background(), r.channel, text)
		}
	})
	if r.shard != nil {
		err = cmp.Or(err, r.shard.say(ctx, text))
	}
	if err == nil && r.unfit != nil {
		err = r.unfit() // others may listen elsewhere
	}
	if err != nil || saw == nil {
		return glance{}, err
	}
	return saw(), nil
}

func rowsFirst(tags []string) []string {
	tags = slices.Clone(tags)
	slices.Sort(tags)
	slices.Reverse(tags) // a row's tag begins with its table's
	return tags
}

// tagSeparator cannot be in a tag: see checkTag.
const tagSeparator = "\x00"

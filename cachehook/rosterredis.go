package cachehook

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// rosterTag is published when the roster has changed.
const rosterTag = "!roster"

// rosterScript keeps the roster, a hash: b is its birth ("random:ms"), v its
// token, which a new table or schema changes; t:TAG is when the tag was last wanted;
// s is the schema; i:ID is until when an instance is enlisted, and the token that it
// has acknowledged.
// KEYS[1] roster; ARGV instance, token acknowledged, new token, ms enlisted, ms
// that it must be old, ms after which an unwanted tag goes, the schema that it shall
// name, the one that this replaces, the wanted tags.
// Returns birth, token, enlisted, pending, settled, the tags added, all tags, schema.
var rosterScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local key, self = KEYS[1], 'i:' .. ARGV[1]
local born = redis.call('HGET', key, 'b')
local token = redis.call('HGET', key, 'v')
if not born or not token then
  born = ARGV[3] .. ':' .. string.format('%.0f', now)
  token = ARGV[3]
  redis.call('HSET', key, 'b', born, 'v', token)
end
local schema = redis.call('HGET', key, 's') or ''
local renamed = ARGV[7] ~= '' and ARGV[7] ~= schema and ARGV[8] == schema
if renamed then
  schema = ARGV[7]
  redis.call('HSET', key, 's', schema)
end
local added = {}
for i = 9, #ARGV do
  local field = 't:' .. ARGV[i]
  local seen = redis.call('HGET', key, field)
  if not seen then
    table.insert(added, ARGV[i])
  end
  if not seen or now - tonumber(seen) > 60000 then
    redis.call('HSET', key, field, string.format('%.0f', now))
  end
end
if #added > 0 or renamed then
  token = ARGV[3]
  redis.call('HSET', key, 'v', token)
end
local settled = now - tonumber(string.match(born, ':(%d+)$')) >= tonumber(ARGV[5])
local pending, listed, all = not settled, false, {}
local h = redis.call('HGETALL', key)
for i = 1, #h, 2 do
  local kind = string.sub(h[i], 1, 2)
  if kind == 't:' then
    if now - tonumber(h[i + 1]) > tonumber(ARGV[6]) then
      redis.call('HDEL', key, h[i])
    else
      table.insert(all, string.sub(h[i], 3))
    end
  elseif kind == 'i:' then
    local till, known = string.match(h[i + 1], '^(%d+) (.*)$')
    if tonumber(till) <= now then
      redis.call('HDEL', key, h[i])
    elseif h[i] == self then
      listed = known
    elseif known ~= token then
      pending = true
    end
  end
end
if settled and (listed or ARGV[2] == token) then
  if ARGV[2] == token then
    listed = token
  end
  redis.call('HSET', key, self, string.format('%.0f', now + ARGV[4]) .. ' ' .. listed)
else
  listed = false
end
redis.call('PEXPIRE', key, ARGV[6])
if ARGV[2] == token then
  all = {}
end
return {born, token, listed and 1 or 0, pending and 1 or 0, settled and 1 or 0, added, all, schema}`)

// rosterTimeout bounds a question: one that took longer would not count any more.
const rosterTimeout = rosterLease / 2

// rosterStore is the roster in Redis. It does not stand behind the guard: while
// Redis is taken for down somebody has to look whether it is.
type rosterStore struct {
	client   redis.UniversalClient
	key      string
	tell     func(ctx context.Context) // publishes rosterTag; nil: nobody listens
	instance string
	settle   time.Duration
	lost     time.Duration // is settle where an earlier roster was lost, and marks with it
	stay     time.Duration // that an instance which died is waited for
	keep     time.Duration // that a table which nobody caches stays
}

func (s *rosterStore) ask(ctx context.Context, q rosterQuestion) (a rosterAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, rosterTimeout)
	defer cancel()
	settle := s.settle
	if q.lost {
		settle = max(settle, s.lost)
	}
	args := make([]any, 0, 8+len(q.tags))
	args = append(args, s.instance, q.acknowledged, mint().String(), s.stay.Milliseconds(), settle.Milliseconds(), s.keep.Milliseconds(), q.schema.orEmpty(), q.replaces.orEmpty())
	for _, tag := range q.tags {
		args = append(args, tag)
	}
	parts, err := rosterScript.Run(ctx, s.client, []string{s.key}, args...).Slice()
	if err != nil {
		return a, redisError("keep the roster", err)
	}
	if len(parts) != 8 {
		return a, redisError("keep the roster", errCorrupt)
	}
	a.born, _ = parts[0].(string)
	a.token, _ = parts[1].(string)
	a.enlisted, a.pending, a.settled = parts[2] == int64(1), parts[3] == int64(1), parts[4] == int64(1)
	a.added, a.all = stringsOf(parts[5]), stringsOf(parts[6])
	schema, _ := parts[7].(string)
	named := schema == ""
	if !named {
		a.schema, named = stampOf(schema)
	}
	if a.born == "" || a.token == "" || !named {
		return a, redisError("keep the roster", errCorrupt)
	}
	renamed := q.schema != (stamp{}) && a.schema == q.schema
	if (len(a.added) > 0 || renamed) && s.tell != nil {
		s.tell(ctx) // for speed alone: the others look by themselves before long
	}
	return a, nil
}

func stringsOf(v any) []string {
	items, _ := v.([]any)
	var all []string
	for _, item := range items {
		if s, ok := item.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

func (s *rosterStore) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, rosterTimeout)
	defer cancel()
	_ = s.client.HDel(ctx, s.key, "i:"+s.instance).Err() // else it runs out
}

// lose drops the roster: what it says may be from the past.
func (s *rosterStore) lose(ctx context.Context) error {
	if err := s.client.Del(ctx, s.key).Err(); err != nil {
		return redisError("drop the roster", err)
	}
	return nil
}

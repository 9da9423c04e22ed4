-- Decides on one request against any number of exact sliding logs at once and
-- charges all of them or none.
--
-- KEYS: for each account its log and its leases, both lists, oldest first. A
-- log holds the instants, in microseconds of this server's clock, at which
-- something was admitted; leases holds the last instants at which something
-- leased may be spent. Each element is charged until one window after its
-- instant. Leases have a list of their own because their instants lie in the
-- future: among the others they would break the order and the clock.
-- ARGV: 1 to charge or 0 to look; the cost; then for each account max, window,
-- how much to lease beyond the cost, and the term of a lease.
-- Reply: for each account wait, remaining, reset, leased, instant of the lease.

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local charge, cost = ARGV[1] == '1', tonumber(ARGV[2])

-- A clock that stepped back stands still at the newest admission, so that the
-- lists stay in order. Nothing but an admission changes them: a refusal that
-- saw a clock ahead of its time would otherwise forget what still counts.
local now = clock
for i = 1, #KEYS, 2 do
  local newest = redis.call('LINDEX', KEYS[i], -1)
  if newest and tonumber(newest) > now then now = tonumber(newest) end
end

-- Returns how many elements lie at or before the edge, and the first after it.
local function expired(key, edge)
  local function at(i)
    local v = redis.call('LINDEX', key, i)
    return v and tonumber(v)
  end
  local first = at(0)
  if not first or first > edge then return 0, first end
  local low, high, step = 0, 1, 1 -- low has expired, high not
  first = at(high)
  while first and first <= edge do
    low, step = high, step * 2
    high = low + step
    first = at(high)
  end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    local v = at(middle)
    if v and v <= edge then low = middle else high, first = middle, v end
  end
  return high, first
end

local function drop(key, n)
  if n == 1 then redis.call('LPOP', key) elseif n > 1 then redis.call('LTRIM', key, n, -1) end
end

-- Returns the n-th oldest of both lists together, which begin at i and j.
local function nth(a, i, b, j, n)
  local x, y = redis.call('LRANGE', a, i, i + n - 1), redis.call('LRANGE', b, j, j + n - 1)
  local v
  i, j = 1, 1
  for _ = 1, n do
    local p, q = tonumber(x[i]), tonumber(y[j])
    if p and (not q or p <= q) then v, i = p, i + 1 else v, j = q, j + 1 end
  end
  return v
end

local function push(key, instant, n, window)
  local s = string.format('%.0f', instant)
  local args = {}
  for i = 1, math.min(n, 1000) do args[i] = s end
  while n > 0 do
    local k = math.min(n, 1000)
    redis.call('RPUSH', key, unpack(args, 1, k))
    n = n - k
  end
  redis.call('PEXPIRE', key, math.ceil((instant - clock + window) / 1000))
end

local reply, gone, refused = {}, {}, false
for i = 1, #KEYS, 2 do
  local logs, leases = KEYS[i], KEYS[i + 1]
  local max, window = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local p, a = expired(logs, now - window)
  local q, b = expired(leases, now - window)
  gone[i], gone[i + 1] = p, q
  local size = (a and redis.call('LLEN', logs) - p or 0) + (b and redis.call('LLEN', leases) - q or 0)
  local oldest = a and b and math.min(a, b) or a or b
  local wait, over = 0, size + cost - max
  if over > 0 then
    refused = true
    wait = (over == 1 and oldest or nth(logs, p, leases, q, over)) + window - clock
  end
  reply[#reply + 1] = wait
  reply[#reply + 1] = max - size
  reply[#reply + 1] = oldest and oldest + window - clock or 0
  reply[#reply + 1] = 0
  reply[#reply + 1] = 0
end
if refused or not charge then return reply end

for i = 1, #KEYS, 2 do
  local logs, leases, at = KEYS[i], KEYS[i + 1], (i - 1) / 2 * 5
  local window, extra, term = tonumber(ARGV[2 * i + 2]), tonumber(ARGV[2 * i + 3]), tonumber(ARGV[2 * i + 4])
  drop(logs, gone[i])
  drop(leases, gone[i + 1])
  push(logs, now, cost, window)
  local left = reply[at + 2] - cost
  extra = math.min(extra, math.floor(left / 16))
  if extra > 0 then
    local instant = now + term
    local newest = redis.call('LINDEX', leases, -1)
    if newest and tonumber(newest) > instant then instant = tonumber(newest) end
    push(leases, instant, extra, window)
    reply[at + 4], reply[at + 5] = extra, instant
    left = left - extra
  end
  reply[at + 2] = left
  if reply[at + 3] == 0 then reply[at + 3] = now + window - clock end
end
return reply

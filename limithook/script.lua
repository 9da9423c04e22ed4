-- Decides on one request against any number of exact sliding logs at once and
-- charges all of them or none.
--
-- KEYS: for each account its log and its leases, both lists, oldest first. A
-- log holds the instants, in microseconds of this server's clock, at which
-- something was admitted; leases holds the last instants at which something
-- leased may be spent. Each element is charged for one window from its
-- instant on. Leases have a list of their own because their instants lie in
-- the future: among the others they would break the order and the clock.
-- ARGV: 1 to charge or 0 to look; the cost; then for each account max, window,
-- how much to lease beyond the cost, and the term of a lease.
-- Reply: for each account wait, remaining, reset, leased, instant of the lease.

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local charge, cost = ARGV[1] == '1', tonumber(ARGV[2])

-- A clock that stepped back stands still at the newest admission, so that the
-- lists stay in order and nothing is forgotten early.
local now = clock
for i = 1, #KEYS, 2 do
  local newest = redis.call('LINDEX', KEYS[i], -1)
  if newest and tonumber(newest) > now then now = tonumber(newest) end
end

-- Drops what has left the window, in steps that grow, and returns the oldest
-- that is left. The bound on the steps keeps one call short: they remove more
-- than any call adds.
local function expire(key, edge)
  local step = 1
  for _ = 1, 64 do
    local v = redis.call('LINDEX', key, step - 1)
    v = v and tonumber(v)
    if v and v <= edge then
      if step == 1 then redis.call('LPOP', key) else redis.call('LTRIM', key, step, -1) end
      step = math.min(step * 4, 1024)
    elseif step == 1 then
      return v
    else
      step = step / 4
    end
  end
  return tonumber(redis.call('LINDEX', key, 0) or nil)
end

-- Returns the n-th oldest of both lists together.
local function nth(a, b, n)
  local x, y = redis.call('LRANGE', a, 0, n - 1), redis.call('LRANGE', b, 0, n - 1)
  local i, j, v = 1, 1, nil
  for _ = 1, n do
    local p, q = tonumber(x[i]), tonumber(y[j])
    if p and (not q or p <= q) then v, i = p, i + 1 else v, j = q, j + 1 end
  end
  return v
end

local function push(key, instant, n)
  local s = string.format('%.0f', instant)
  if n == 1 then return redis.call('RPUSH', key, s) end
  local args = {}
  for i = 1, math.min(n, 1000) do args[i] = s end
  while n > 0 do
    local k = math.min(n, 1000)
    redis.call('RPUSH', key, unpack(args, 1, k))
    n = n - k
  end
end

local reply, refused = {}, false
for i = 1, #KEYS, 2 do
  local logs, leases = KEYS[i], KEYS[i + 1]
  local max, window = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local a = expire(logs, now - window)
  local b = expire(leases, now - window)
  local size = (a and redis.call('LLEN', logs) or 0) + (b and redis.call('LLEN', leases) or 0)
  local oldest = a and b and math.min(a, b) or a or b
  local wait, over = 0, size + cost - max
  if over > 0 then
    refused = true
    wait = (over == 1 and oldest or nth(logs, leases, over)) + window - now
    if wait < 1 then wait = 1 end
  end
  reply[#reply + 1] = wait
  reply[#reply + 1] = max - size
  reply[#reply + 1] = oldest and oldest + window - now or 0
  reply[#reply + 1] = 0
  reply[#reply + 1] = 0
end
if refused or not charge then return reply end

for i = 1, #KEYS, 2 do
  local logs, leases, at = KEYS[i], KEYS[i + 1], (i - 1) / 2 * 5
  local window, extra, term = tonumber(ARGV[2 * i + 2]), tonumber(ARGV[2 * i + 3]), tonumber(ARGV[2 * i + 4])
  push(logs, now, cost)
  redis.call('PEXPIRE', logs, math.ceil((now - clock + window) / 1000))
  local left = reply[at + 2] - cost
  extra = math.min(extra, math.floor(left / 16))
  if extra > 0 then
    local instant = now + term
    local newest = redis.call('LINDEX', leases, -1)
    if newest and tonumber(newest) > instant then instant = tonumber(newest) end
    push(leases, instant, extra)
    redis.call('PEXPIRE', leases, math.ceil((instant - clock + window) / 1000))
    reply[at + 4], reply[at + 5] = extra, instant
    left = left - extra
  end
  reply[at + 2] = left
  if reply[at + 3] == 0 then reply[at + 3] = window end
end
return reply

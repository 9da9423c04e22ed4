-- Decides on one request against any number of exact sliding logs at once and
-- charges all of them or none.
--
-- KEYS: for each account its log and its leases, both lists, oldest first; last
-- the epoch. A log holds the instants, in microseconds of this server's clock, at
-- which something was admitted. The leases are triples: the last instant at which
-- the lease may be spent, and the sum of all leases' units before it and with it.
-- Each unit is charged until one window after its instant. Leases have a list of
-- their own because their instants lie in the future: among the others they
-- would break the order and the clock.
-- ARGV: 1 to charge or 0 to look; the cost; then for each account max, window,
-- how much to lease beyond the cost, the term of a lease, and 1 if the log is to
-- live for two windows from now: who asks has it do so once a window, since not
-- to ask is cheaper.
-- Reply: for each account wait, remaining, reset, leased, instant of the lease;
-- last the epoch, 0 if there was none of late.

local call = redis.call
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
local charge, cost, accounts = ARGV[1] == '1', tonumber(ARGV[2]), #KEYS - 1

-- A clock that stepped back stands still at the newest admission, so that the
-- lists stay in order. Nothing but an admission changes them: a refusal that
-- saw a clock ahead of its time would otherwise forget what still counts.
local now, newest = clock, {}
for i = 1, accounts, 2 do
  local v = call('LINDEX', KEYS[i], -1)
  if v then
    v = tonumber(v)
    if v > now then now = v end
  end
  newest[i] = v
end

-- Returns how many elements lie at or before the edge, of which the first does,
-- and the first after it. An element is so many entries.
local function expired(key, entries, edge)
  local function at(i)
    local v = call('LINDEX', key, i * entries)
    return v and tonumber(v)
  end
  local low, high, step = 0, 1, 1 -- low has expired, high not
  local first = at(1)
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

-- Returns the n-th oldest unit of both lists together, which begin at i and j.
local function nth(a, i, b, j, n)
  local x = i < 0 and {} or call('LRANGE', a, i, i + n - 1)
  local y = j < 0 and {} or call('LRANGE', b, 3 * j, 3 * (j + n) - 1)
  local v
  i, j = 1, 1
  while n > 0 do
    local p, q = tonumber(x[i]), tonumber(y[j])
    if p and (not q or p <= q) then
      v, i, n = p, i + 1, n - 1
    else
      v, n, j = q, n - (y[j + 2] - y[j + 1]), j + 3
    end
  end
  return v
end

local reply, gone, all, refused = {}, {}, {}, false
for i = 1, accounts, 2 do
  local logs, leases = KEYS[i], KEYS[i + 1]
  local at = (i - 1) / 2 * 5
  local max, window = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local edge, size, p, a, q, b = now - window, 0, 0, nil, 0, nil
  if newest[i] then
    a = tonumber(call('LINDEX', logs, 0))
    if newest[i] <= edge then
      p, a = -1, nil -- all
    else
      if a <= edge then p, a = expired(logs, 1, edge) end
      size = call('LLEN', logs) - p
    end
  end
  b = call('LINDEX', leases, 0)
  if b then
    b = tonumber(b)
    if b <= edge then q, b = expired(leases, 3, edge) end
    all[i] = tonumber(call('LINDEX', leases, -1))
    if b then
      size = size + all[i] - call('LINDEX', leases, 3 * q + 1)
    else
      q = -1
    end
  end
  gone[i], gone[i + 1] = p, q
  local oldest = a and b and math.min(a, b) or a or b
  local wait, over = 0, size + cost - max
  if over > 0 then
    refused = true
    wait = (over == 1 and oldest or nth(logs, p, leases, q, over)) + window - clock
  end
  reply[at + 1], reply[at + 2] = wait, max - size
  reply[at + 3], reply[at + 4], reply[at + 5] = oldest and oldest + window - clock or 0, 0, 0
end
reply[accounts / 2 * 5 + 1] = tonumber(call('GET', KEYS[accounts + 1]) or 0)
if refused or not charge then return reply end

local function drop(key, n, entries)
  if n == -1 then
    call('DEL', key)
  elseif n * entries == 1 then
    call('LPOP', key)
  elseif n > 0 then
    call('LTRIM', key, n * entries, -1)
  end
end

local function push(key, instant, n)
  local args = {}
  for i = 1, math.min(n, 1000) do args[i] = instant end
  while n > 0 do
    local k = math.min(n, 1000)
    call('RPUSH', key, unpack(args, 1, k))
    n = n - k
  end
end

local instant = string.format('%.0f', now)
for i = 1, accounts, 2 do
  local logs, leases, at = KEYS[i], KEYS[i + 1], (i - 1) / 2 * 5
  local window, extra = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  if gone[i] ~= 0 then drop(logs, gone[i], 1) end
  if gone[i + 1] ~= 0 then drop(leases, gone[i + 1], 3) end
  if cost == 1 then call('RPUSH', logs, instant) else push(logs, instant, cost) end
  local live = math.ceil((now - clock + 2 * window) / 1000)
  if not newest[i] or gone[i] == -1 then
    call('PEXPIRE', logs, live)
  elseif ARGV[at + 7] == '1' then
    call('PEXPIRE', logs, live, 'GT') -- others may go by a longer window
  end
  local left = reply[at + 2] - cost
  if extra > 0 then
    extra = math.min(extra, math.floor(left / 16))
  end
  if extra > 0 then
    local term = now + ARGV[at + 6]
    local last = call('LINDEX', leases, -3)
    if last and tonumber(last) > term then term = tonumber(last) end
    local before = last and all[i] or 0
    call('RPUSH', leases, string.format('%.0f', term), string.format('%.0f', before), string.format('%.0f', before + extra))
    live = math.ceil((term - clock + window) / 1000)
    if last then call('PEXPIRE', leases, live, 'GT') else call('PEXPIRE', leases, live) end
    reply[at + 4], reply[at + 5] = extra, term
    left = left - extra
  end
  reply[at + 2] = left
  if reply[at + 3] == 0 then reply[at + 3] = now + window - clock end
end
return reply

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

-- Leases and epoch are seldom there all at once where nobody leases: one question
-- instead of one for each.
local extras = {}
for i = 2, accounts, 2 do extras[#extras + 1] = KEYS[i] end
extras[#extras + 1] = KEYS[accounts + 1]
extras = call('EXISTS', unpack(extras)) > 0

-- Returns how many elements lie at or before the edge, of which the first does,
-- and the first after it. An element is so many entries.
local function expired(key, entries, edge)
  local low, high, step = 0, 1, 1 -- low has expired, high not
  local first
  while true do
    first = call('LINDEX', key, high * entries)
    if not first then break end
    first = tonumber(first)
    if first > edge then break end
    low, step = high, step * 2
    high = low + step
  end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    local v = call('LINDEX', key, middle * entries)
    v = v and tonumber(v)
    if v and v <= edge then low = middle else high, first = middle, v end
  end
  return high, first or nil
end

local reply, gone, all, refused = {}, {}, {}, false
for i = 1, accounts, 2 do
  local logs, leases = KEYS[i], KEYS[i + 1]
  local at = (i - 1) / 2 * 5
  local max, window = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local edge, size, p, a, q, b = now - window, 0, 0, nil, 0
  if newest[i] then
    a = tonumber(call('LINDEX', logs, 0))
    if newest[i] <= edge then
      p, a = -1, nil -- all
    else
      if a <= edge then p, a = expired(logs, 1, edge) end
      size = call('LLEN', logs) - p
    end
  end
  b = extras and call('LINDEX', leases, 0)
  if b then
    b = tonumber(b)
    if b <= edge then q, b = expired(leases, 3, edge) end
    all[i] = tonumber(call('LINDEX', leases, -1))
    if b then
      size = size + all[i] - call('LINDEX', leases, 3 * q + 1)
    else
      q = -1 -- all
    end
  end
  gone[i], gone[i + 1] = p, q
  local oldest = a and b and math.min(a, b) or a or b
  local wait, over = 0, size + cost - max
  if over > 0 then
    refused = true
    local last = oldest -- the over-th oldest unit of both lists together
    if over > 1 then
      local x = p < 0 and {} or call('LRANGE', logs, p, p + over - 1)
      local y = q < 0 and {} or call('LRANGE', leases, 3 * q, 3 * (q + over) - 1)
      local j, k, n = 1, 1, over
      while n > 0 do
        local u, v = tonumber(x[j]), tonumber(y[k])
        if u and (not v or u <= v) then
          last, j, n = u, j + 1, n - 1
        else
          last, n, k = v, n - (y[k + 2] - y[k + 1]), k + 3
        end
      end
    end
    wait = last + window - clock
  end
  reply[at + 1], reply[at + 2] = wait, max - size
  reply[at + 3], reply[at + 4], reply[at + 5] = oldest and oldest + window - clock or 0, 0, 0
end
reply[accounts / 2 * 5 + 1] = extras and tonumber(call('GET', KEYS[accounts + 1]) or 0) or 0
if refused or not charge then return reply end

local instant = string.format('%.0f', now)
for i = 1, accounts, 2 do
  local logs, leases, at = KEYS[i], KEYS[i + 1], (i - 1) / 2 * 5
  local window, extra = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local p, q = gone[i], gone[i + 1]
  if p == 1 then call('LPOP', logs) elseif p > 0 then call('LTRIM', logs, p, -1) elseif p < 0 then call('DEL', logs) end
  if q > 0 then call('LTRIM', leases, 3 * q, -1) elseif q < 0 then call('DEL', leases) end
  if cost == 1 then
    call('RPUSH', logs, instant)
  else
    local instants, left = {}, cost
    for j = 1, math.min(cost, 1000) do instants[j] = instant end
    while left > 0 do
      call('RPUSH', logs, unpack(instants, 1, math.min(left, 1000)))
      left = left - 1000
    end
  end
  if not newest[i] or p < 0 then
    call('PEXPIRE', logs, math.ceil((now - clock + 2 * window) / 1000))
  elseif ARGV[at + 7] == '1' then
    call('PEXPIRE', logs, math.ceil((now - clock + 2 * window) / 1000), 'GT') -- others may go by a longer window
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
    local live = math.ceil((term - clock + window) / 1000)
    if last then call('PEXPIRE', leases, live, 'GT') else call('PEXPIRE', leases, live) end
    reply[at + 4], reply[at + 5] = extra, term
    left = left - extra
  end
  reply[at + 2] = left
  if reply[at + 3] == 0 then reply[at + 3] = now + window - clock end
end
return reply

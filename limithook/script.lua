-- Decides on one request against any number of exact sliding logs at once and
-- charges all of them or none.
--
-- KEYS: the log of each account, then the leases of each, all of them lists, oldest
-- first; last the epoch. A log holds the instants, in microseconds of this server's
-- clock, at which something was admitted. The leases are triples: the last instant at
-- which the lease may be spent, and the sum of all leases' units before it and with it.
-- Each unit is charged until one window after its instant. Leases have a list of
-- their own because their instants lie in the future: among the others they
-- would break the order and the clock.
-- ARGV: 1 to charge or 0 to look; the cost; then for each account max, window,
-- how much to lease beyond the cost, the term of a lease, and 1 if the log is to
-- live for two windows from now: who asks has it do so once a window, since not
-- to ask is cheaper.
-- Reply: for each account wait, remaining, reset, leased, instant of the lease;
-- last the epoch, 0 if there was none of late.
--
-- Most of the time goes into the interpreter. So a string is made a number by
-- arithmetic, tables are made in their length and instants are not formatted twice.

local call, keys, args = redis.call, KEYS, ARGV
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
local accounts, cost = (#keys - 1) / 2, args[2] + 0

-- A clock that stepped back stands still at the newest admission, so that the
-- lists stay in order. Nothing but an admission changes them: a refusal that
-- saw a clock ahead of its time would otherwise forget what still counts.
local now, newest = clock, {false, false}
for i = 1, accounts do
  local v = call('LINDEX', keys[i], -1)
  if v then
    v = v + 0
    if v > now then now = v end
    newest[i] = v
  end
end

-- Leases and epoch are seldom there all at once where nobody leases: one question
-- instead of one for each.
local extras = call('EXISTS', unpack(keys, accounts + 1)) > 0

-- Returns how many elements lie at or before the edge, of which the first does,
-- and the first after it. An element is so many entries.
local function expired(key, entries, edge)
  local low, high, step = 0, 1, 1 -- low has expired, high not
  local first
  while true do
    first = call('LINDEX', key, high * entries)
    if not first then break end
    first = first + 0
    if first > edge then break end
    low, step = high, step * 2
    high = low + step
  end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    local v = call('LINDEX', key, middle * entries)
    v = v and v + 0
    if v and v <= edge then low = middle else high, first = middle, v end
  end
  return high, first or nil
end

-- Returns the instant of the over-th oldest unit of an account. p entries of its log
-- have expired and a is the first that has not, nil if there is none; b, q are the
-- same of its leases.
local function unit(over, log, p, a, lease, q, b)
  if not b then return call('LINDEX', log, p + over - 1) + 0 end
  local gone = call('LINDEX', lease, 3 * q + 1)
  local low, high = q, call('LLEN', lease) / 3
  while low < high do -- the first lease up to which there are so many
    local middle = math.floor((low + high) / 2)
    local at, units = call('LINDEX', lease, 3 * middle) + 0, call('LINDEX', lease, 3 * middle + 2) - gone
    if a and a <= at then units = units + expired(log, 1, at) - p end
    if units < over then low = middle + 1 else high = middle end
  end
  local of = call('LINDEX', lease, 3 * low)
  local before = call('LINDEX', lease, of and 3 * low + 1 or -1) - gone
  local own = a and call('LINDEX', log, p + over - before - 1)
  return math.min(own or math.huge, of or math.huge)
end

local reply = accounts == 1 and {0, 0, 0, 0, 0, 0} or {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
for i = 12, 5 * accounts + 1 do reply[i] = 0 end
local logs, leases, sums = {0, 0}, {0, 0}, {0, 0} -- how much of each has expired, -1 for all
local refused = false
for i = 1, accounts do
  local log, lease, at = keys[i], keys[accounts + i], 5 * i - 4
  local window = args[at + 3] + 0
  local edge, size, p, q, a, b = now - window, 0, 0, 0, nil, nil
  if newest[i] then
    if newest[i] <= edge then
      p = -1
    else
      a, size = call('LINDEX', log, 0) + 0, call('LLEN', log)
      if a <= edge then
        p, a = expired(log, 1, edge)
        size = size - p
      end
    end
  end
  b = extras and call('LINDEX', lease, 0)
  if b then
    b, sums[i] = b + 0, call('LINDEX', lease, -1) + 0
    if b <= edge then q, b = expired(lease, 3, edge) end
    if b then size = size + sums[i] - call('LINDEX', lease, 3 * q + 1) else q = -1 end
  end
  logs[i], leases[i] = p, q
  local left = args[at + 2] - size
  reply[at + 1] = left
  local oldest = a and b and math.min(a, b) or a or b
  if oldest then reply[at + 2] = oldest + window - clock end
  local over = cost - left
  if over > 0 then
    refused = true
    reply[at] = (over == 1 and oldest or unit(over, log, p, a, lease, q, b)) + window - clock
  end
end
if extras then reply[5 * accounts + 1] = (call('GET', keys[2 * accounts + 1]) or 0) + 0 end
if refused or args[1] ~= '1' then return reply end

local instant = now == clock and time[1] .. string.sub('00000' .. time[2], -6) or string.format('%.0f', now)
for i = 1, accounts do
  local log, lease, at, p, q = keys[i], keys[accounts + i], 5 * i - 4, logs[i], leases[i]
  if p == 1 then call('LPOP', log) elseif p > 0 then call('LTRIM', log, p, -1) elseif p < 0 then call('DEL', log) end
  if q > 0 then call('LTRIM', lease, 3 * q, -1) elseif q < 0 then call('DEL', lease) end
  if cost == 1 then
    call('RPUSH', log, instant)
  else
    local instants, rest = {}, cost
    for j = 1, math.min(cost, 1000) do instants[j] = instant end
    while rest > 0 do
      call('RPUSH', log, unpack(instants, 1, math.min(rest, 1000)))
      rest = rest - 1000
    end
  end
  if not newest[i] or p < 0 then
    call('PEXPIRE', log, math.ceil((now - clock + 2 * args[at + 3]) / 1000))
  elseif args[at + 6] == '1' then
    call('PEXPIRE', log, math.ceil((now - clock + 2 * args[at + 3]) / 1000), 'GT') -- others may go by a longer window
  end
  local left = reply[at + 1] - cost
  if args[at + 4] ~= '0' then
    local extra = math.min(args[at + 4], math.floor(left / 16))
    if extra > 0 then
      local term, last = now + args[at + 5], call('LINDEX', lease, -3)
      if last then term = math.max(term, last) end
      local before = last and sums[i] or 0
      call('RPUSH', lease, string.format('%.0f', term), string.format('%.0f', before), string.format('%.0f', before + extra))
      local live = math.ceil((term - clock + args[at + 3]) / 1000)
      if last then call('PEXPIRE', lease, live, 'GT') else call('PEXPIRE', lease, live) end
      reply[at + 3], reply[at + 4] = extra, term
      left = left - extra
    end
  end
  reply[at + 1] = left
  if reply[at + 2] == 0 then reply[at + 2] = now + args[at + 3] - clock end
end
return reply

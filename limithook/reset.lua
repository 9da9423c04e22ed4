-- Forgets what was charged to one account.
-- KEYS: its log, its leases (see script.lua), and the epoch, which is returned.
-- ARGV: its window.
-- A lease that can still be spent by whoever holds it stays charged: else more
-- than the limit could be admitted from now on. One that ends more than a window from
-- now was drawn when the clock was ahead of its time, and stays for nobody.
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
redis.call('DEL', KEYS[1])
while true do
  local v = redis.call('LINDEX', KEYS[2], 0)
  if not v or tonumber(v) > clock then break end
  redis.call('LPOP', KEYS[2], 3)
end
while true do
  local v = redis.call('LINDEX', KEYS[2], -3)
  if not v or tonumber(v) <= clock + ARGV[1] then break end
  redis.call('RPOP', KEYS[2], 3)
end
-- Refusals from before are not to be repeated. Nobody remembers one for longer
-- than the epoch lives.
local epoch = math.max(clock, (tonumber(redis.call('GET', KEYS[3]) or 0)) + 1)
redis.call('SET', KEYS[3], string.format('%.0f', epoch), 'PX', 3000)
return epoch

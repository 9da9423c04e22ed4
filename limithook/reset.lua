-- Forgets what was charged to one account.
-- KEYS: its log and its leases.
-- A lease that can still be spent by whoever holds it stays charged: else more
-- than the limit could be admitted from now on.
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
redis.call('DEL', KEYS[1])
while true do
  local v = redis.call('LINDEX', KEYS[2], 0)
  if not v or tonumber(v) > clock then return 0 end
  redis.call('LPOP', KEYS[2])
end

-- Gives unspent leases back.
-- KEYS: the leases of accounts (see script.lua); last the epoch.
-- ARGV: for each account the instant of the lease and how many of its units.
-- It does not matter whose units of one instant are taken out, only how many.
local call = redis.call
local back = false
for i = 1, #KEYS - 1 do
  local key, instant, units = KEYS[i], tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local at = -3 -- a triple, from the end
  while units > 0 do
    local v = call('LINDEX', key, at)
    if not v or tonumber(v) < instant then break end
    local before, with = tonumber(call('LINDEX', key, at + 1) or 0), tonumber(call('LINDEX', key, at + 2) or 0)
    local n = tonumber(v) == instant and math.min(units, with - before) or 0
    if n > 0 then
      back, units = true, units - n
      call('LSET', key, at + 2, string.format('%.0f', with - n))
      for j = at + 3, -3, 3 do -- the sums of those after it
        for k = j + 1, j + 2 do
          call('LSET', key, k, string.format('%.0f', call('LINDEX', key, k) - n))
        end
      end
      if with - n == before then
        for k = at, at + 2 do call('LSET', key, k, 'x') end
        call('LREM', key, -3, 'x')
        at = at + 3 -- what was before it has its place
      end
    end
    at = at - 3
  end
end
if not back then return 0 end
local time = call('TIME')
local epoch = math.max(time[1] * 1000000 + time[2], (tonumber(call('GET', KEYS[#KEYS]) or 0)) + 1)
call('SET', KEYS[#KEYS], string.format('%.0f', epoch), 'PX', 3000)
return epoch

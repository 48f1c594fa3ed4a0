-- The index of leases by their end, for the reaper: a hint, never the truth. KEYS[1] is one of its shards.
-- ARGV: 'add', ms, time to live, member...   look at these in so many ms, unless that is going to be done sooner
--       'settle', member...                  forget these, except those that were added again since they were due
--       'due', at most -> members whose lease may have ended
local time = redis.call('TIME')
local now = math.floor((tonumber(time[1]) * 1000000 + tonumber(time[2])) / 1000)

if ARGV[1] == 'add' then
  local at = now + tonumber(ARGV[2])
  for i = 4, #ARGV do
    -- A claim that is refused must not put off the look at the owner; one that is overdue may just be settled.
    local known = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or 0)
    if known <= now or known > at then redis.call('ZADD', KEYS[1], string.format('%.0f', at), ARGV[i]) end
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 0
elseif ARGV[1] == 'settle' then
  for i = 2, #ARGV do
    if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or 0) <= now then redis.call('ZREM', KEYS[1], ARGV[i]) end
  end
  return 0
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])

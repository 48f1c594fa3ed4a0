-- INDEX: sessions by the time at which the reaper checks their lease. It is a hint; the session record decides.
-- Key: one shard of the index
-- Arguments and results:
--   'add', ms, time to live, session...   check these sessions in `ms`, or earlier if they are entered already -> 0
--   'settle', session...                  remove these sessions, except those that were added again meanwhile -> 0
--   'due', limit                          -> sessions whose lease may have expired
-- Guarantee: a session with an owner stays in the index until its lease was checked.
local time = redis.call('TIME')
local now = math.floor((tonumber(time[1]) * 1000000 + tonumber(time[2])) / 1000)

if ARGV[1] == 'add' then
  local at = now + tonumber(ARGV[2])
  for i = 4, #ARGV do
    -- A refused claim must not delay the check of the owner. An overdue entry may be settled at this moment.
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

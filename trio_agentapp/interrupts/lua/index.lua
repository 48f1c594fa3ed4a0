-- The index of leases by their end, for the reaper: a hint, never the truth. KEYS[1] is one of its shards.
-- ARGV: 'add', ms, member... | 'remove', member... | 'due', at most -> members whose lease may have ended
local time = redis.call('TIME')
local now = math.floor((tonumber(time[1]) * 1000000 + tonumber(time[2])) / 1000)

if ARGV[1] == 'add' then
  for i = 3, #ARGV do redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[i]) end
  return 0
elseif ARGV[1] == 'remove' then
  for i = 2, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
  return 0
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])

-- VIEWERS: which other nodes have readers of a run. Its owner asks, to stop a run that nobody watches.
-- Keys: sorted set of nodes, by the time at which their report expires; string with the time of the last reader
-- Arguments, always with the time to live in ms at the end:
--   'here', node, ms for which the report holds | 'gone', node | 'ask'
-- Result of 'ask': ms since there was a reader; 0 if there is one, -1 if there never was one
local time = redis.call('TIME')
local now = math.floor((tonumber(time[1]) * 1000000 + tonumber(time[2])) / 1000)
local function int(n) return string.format('%.0f', n) end

if ARGV[1] == 'here' then
  redis.call('ZADD', KEYS[1], int(now + tonumber(ARGV[3])), ARGV[2])
  redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) * 2)
  redis.call('SET', KEYS[2], int(now), 'PX', ARGV[4])
  return 0
elseif ARGV[1] == 'gone' then
  redis.call('ZREM', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[2], int(now), 'PX', ARGV[3])
  return 0
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now))
if redis.call('ZCARD', KEYS[1]) > 0 then return 0 end
local seen = redis.call('GET', KEYS[2])
if not seen then return -1 end
return math.max(1, now - tonumber(seen))

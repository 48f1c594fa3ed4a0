-- PROBE: try the commands that runs need.
-- Keys: five keys of the probe, in one slot (hash, sorted set, stream, list, string)
-- Arguments: channel, '' for one write or 'all' for every command that the scripts use. 'all' finds at the start
--   that the user lacks the permission for a command.
-- Result: 1
-- Guarantee: only the string is left behind, for a second.
local hash, zset, stream, list, text = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

redis.call('SET', text, '1', 'PX', 1000)
if ARGV[2] == 'all' then
  redis.call('TIME')
  redis.call('GET', text)
  redis.call('EXISTS', text)
  redis.call('PERSIST', text)
  redis.call('PEXPIRE', text, 1000)
  redis.call('HSET', hash, 'a', '1')
  redis.call('HINCRBY', hash, 'a', 1)
  redis.call('HGET', hash, 'a')
  redis.call('HMGET', hash, 'a')
  redis.call('HGETALL', hash)
  redis.call('HEXISTS', hash, 'a')
  redis.call('HDEL', hash, 'a')
  redis.call('ZADD', zset, 1, 'a')
  redis.call('ZCARD', zset)
  redis.call('ZRANK', zset, 'a')
  redis.call('ZSCORE', zset, 'a')
  redis.call('ZRANGE', zset, 0, 0)
  redis.call('ZRANGEBYSCORE', zset, '-inf', '+inf')
  redis.call('ZREMRANGEBYRANK', zset, 1, 1)
  redis.call('ZREMRANGEBYSCORE', zset, 2, 2)
  redis.call('ZREM', zset, 'a')
  redis.call('XADD', stream, '1-0', 'a', '1')
  redis.call('XRANGE', stream, '-', '+')
  redis.call('XREVRANGE', stream, '+', '-')
  redis.call('XTRIM', stream, 'MINID', '1-0')
  redis.call('RPUSH', list, '1')
  redis.call('LLEN', list)
  redis.call('LINDEX', list, 0)
  redis.call('LRANGE', list, 0, 0)
  redis.call('LTRIM', list, 1, 1)
  redis.call('PUBLISH', ARGV[1], '0 0')
  redis.call('DEL', hash, zset, stream, list, text)
end
return 1

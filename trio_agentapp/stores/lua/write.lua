-- WRITE: value, or nothing for a deletion -> {'OK', '1' if there was anything} | {'STALE', fence}
local value = ARGV[4]

local before = answered()
if before then return { 'OK', before } end
local fence = stale()
if fence then return { 'STALE', fence } end

local existed = redis.call('HEXISTS', record, 'v') + redis.call('EXISTS', turns) > 0
local another = token ~= '' and redis.call('HGET', record, 'w') ~= token
local old = another and redis.call('HGET', record, 'v')
if value then
  redis.call('HSET', record, 'v', value)
else
  redis.call('HDEL', record, 'v', 'count', 'size')
  redis.call('DEL', turns, messages)
end
if token == '' then
  redis.call('HDEL', record, 'w', 'b')
elseif another then
  redis.call('HSET', record, 'w', token)
  if old then redis.call('HSET', record, 'b', old) else redis.call('HDEL', record, 'b') end
end
return done(existed and '1' or '0')

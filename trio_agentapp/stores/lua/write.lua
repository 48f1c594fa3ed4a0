-- WRITE: value, or nothing for a deletion -> {'OK', '1' if there was anything} | {'STALE', fence}
local value = ARGV[4]

local before = answered()
if before then return { 'OK', before } end
local fence = admit(token)
if fence then return { 'STALE', fence } end

local existed = redis.call('HEXISTS', record, 'v') + redis.call('EXISTS', turns) > 0
if token == '' then
  redis.call('HDEL', record, 'w', 'b')
elseif redis.call('HGET', record, 'w') ~= token then
  local old = redis.call('HGET', record, 'v')
  redis.call('HSET', record, 'w', token)
  if old then redis.call('HSET', record, 'b', old) else redis.call('HDEL', record, 'b') end
end
if value then
  redis.call('HSET', record, 'v', value)
else
  redis.call('HDEL', record, 'v', 'count', 'size')
  redis.call('DEL', turns, messages)
end
return done(existed and '1' or '0')

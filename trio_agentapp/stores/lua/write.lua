-- WRITE: replace the value, or delete the session.
-- Arguments: value, or none for a deletion
-- Result: {'OK', '1' or '0': whether there was anything before} | {'STALE', fence}
-- Guarantee: the version from before a run's first write is kept until another writer comes.
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

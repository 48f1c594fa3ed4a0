-- UNDO: undo the writes of a run.
-- Arguments: token of this run
-- Result: {'OK', '1' or '0': whether there were any} | {'STALE', fence}
-- Guarantee: only the last writer is undone.
local undone, did = ARGV[4], '0'

local before = answered()
if before then return { 'OK', before } end
local fence = stale()
if fence then return { 'STALE', fence } end

if redis.call('HGET', record, 'w') == undone then
  local old = redis.call('HGET', record, 'b')
  redis.call('HDEL', record, 'w', 'b')
  if old then redis.call('HSET', record, 'v', old) else redis.call('HDEL', record, 'v') end
  did = '1'
end
local last = redis.call('LINDEX', turns, -1)
if last and string.match(last, '^(%d+) ') == undone then
  drop('RPOP')
  did = '1'
end
if did == '0' and token == '' then return { 'OK', did } end
return done(did)

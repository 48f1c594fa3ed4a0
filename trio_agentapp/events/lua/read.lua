-- READ: read the stream of a run.
-- Key: the stream
-- Arguments and results:
--   'from', number, limit of events, limit of bytes -> events from this number on; at least one if there is one
--   'extent' -> {number of the first event, number of the last event, the last event}, or {} if there are no events
if ARGV[1] == 'extent' then
  local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not head then return {} end
  local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  return { tonumber(string.match(head[1], '^%d+')) - 1, tonumber(string.match(tail[1], '^%d+')) - 1, tail[2][2] }
end

local events, bytes = {}, 0
local start = string.format('%.0f-0', tonumber(ARGV[2]) + 1)
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', ARGV[3])) do
  local event = entry[2][2]
  bytes = bytes + #event
  if bytes > tonumber(ARGV[4]) and #events > 0 then break end
  events[#events + 1] = event
end
return events

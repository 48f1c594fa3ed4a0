-- EMIT: append events to the stream of a run.
-- Keys: session record, stream of the run
-- Arguments: run, token, number of the first event, time to live in ms, lowest number to keep, '1' to append after
-- a gap,
--   channel, events...
-- Result: {'OK'} | {'STOP'}: appended, and a stop was requested | {'LOST'}: not the owner
--   | {'GAP', number of the last event there}: events before these are missing
-- Guarantees: only the session's owner appends. A repeated call appends nothing twice.
-- An entry id is the sequence number plus one, since Redis refuses 0-0.
local run, tok, first, ttl, least = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local stream = KEYS[2]

local s = redis.call('HMGET', KEYS[1], 'state', 'run', 'tok', 'stop')
if s[1] ~= 'RUNNING' or s[2] ~= run or s[3] ~= tok then return { 'LOST' } end

local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
local last = -1
if tail[1] then last = tonumber(string.match(tail[1][1], '^%d+')) - 1 end
if first > last + 1 and ARGV[6] ~= '1' then return { 'GAP', string.format('%.0f', last) } end

local number = first
for i = 8, #ARGV do
  -- Events that are there were appended by an earlier attempt, whose answer was lost.
  if number > last then redis.call('XADD', stream, string.format('%.0f-0', number + 1), 'e', ARGV[i]) end
  number = number + 1
end
if least > 0 then redis.call('XTRIM', stream, 'MINID', string.format('%.0f-0', least + 1)) end
redis.call('PEXPIRE', stream, ttl)
redis.call('PUBLISH', ARGV[7], run .. ' ' .. string.format('%.0f', number - 1))
if s[4] == run then return { 'STOP' } end
return { 'OK' }

-- TAKE: fetch the messages for a run.
-- Arguments: run, token, n (messages received so far)
-- Result: the messages after the first n; none if the caller does not own the session. The first n are deleted.
-- Guarantee: a repeated call with the same n gets the same messages, so a lost answer loses no message.
local run, tok, received = ARGV[7], ARGV[8], tonumber(ARGV[9])

local s = read_session()
if not (s.running and s.run == run and s.tok == tok) then return {} end
local inbox = base .. 'i:' .. run
local forgotten = tonumber(redis.call('HGET', record(run), 'received') or 0)
if received > forgotten then
  redis.call('LTRIM', inbox, int(received - forgotten), -1)
  redis.call('HSET', record(run), 'received', int(received))
end
return redis.call('LRANGE', inbox, 0, -1)

-- INPUT: run, message, how many at most -> {'OK', node} | {'FULL'} | {'GONE'}
-- A message for a run that runs; its owner is told, and takes it with TAKE.
local run, message, at_most = ARGV[7], ARGV[8], tonumber(ARGV[9])

local s = read_session()
if not (s.running and s.run == run and s.exp > now) then return { 'GONE' } end
local inbox = base .. 'i:' .. run
if redis.call('LLEN', inbox) >= at_most then return { 'FULL' } end
redis.call('RPUSH', inbox, message)
redis.call('PEXPIRE', inbox, session_ttl)
redis.call('PUBLISH', channel .. s.owner, run .. ' ' .. s.tok .. ' input')
return { 'OK', s.owner }

-- INPUT: put a message into the inbox of a running run, and signal its node. The node fetches it with TAKE.
-- Arguments: run, message, limit of waiting messages
-- Result: {'OK', node} | {'FULL'} | {'GONE'}: the run is not running
local run, message, at_most = ARGV[7], ARGV[8], tonumber(ARGV[9])

local s = read_session()
if not (s.running and s.run == run and s.exp > now) then return { 'GONE' } end
local inbox = base .. 'i:' .. run
if redis.call('LLEN', inbox) >= at_most then return { 'FULL' } end
redis.call('RPUSH', inbox, message)
redis.call('PEXPIRE', inbox, session_ttl)
redis.call('PUBLISH', channel .. s.owner, run .. ' ' .. s.tok .. ' input')
return { 'OK', s.owner }

-- HEARTBEAT: renew a lease.
-- Arguments: run, token
-- Result: {'OK'} | {'STOP'}: renewed, and a stop was requested | {'LOST'}: not the owner
-- Guarantee: only the owner's lease is renewed. Expired leases that no script has reaped yet are renewed, too.
local run, tok = ARGV[7], ARGV[8]

local s = read_session()
if not (s.running and s.run == run and s.tok == tok) then return { 'LOST' } end
redis.call('HSET', session, 'exp', int(now + lease), 'last', int(now))
redis.call('PEXPIRE', session, session_ttl)
redis.call('PEXPIRE', record(run), session_ttl)
redis.call('PEXPIRE', base .. 'e:' .. run, session_ttl)
if s.stop == run then return { 'STOP' } end
return { 'OK' }

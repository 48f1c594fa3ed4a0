-- STATUS: read a session, and the record of a run.
-- Arguments: run or ''
-- Result: {state, run, node, time of the last activity, record as HGETALL returns it}
-- Guarantee: an expired lease is reaped first, so a dead owner's run is never reported as running.
local run = ARGV[7]

local s = read_session()
if s.running and s.exp <= now then
  reap(s)
  s = read_session()
end
local last = redis.call('HGET', session, 'last')
local fields = {}
if run ~= '' then fields = redis.call('HGETALL', record(run)) end
return { s.state or 'IDLE', s.run or '', s.owner or '', last or '', fields }

-- STATUS: run or '' -> {state, run, node, last, record as HGETALL gives it}; what has expired is reaped first
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

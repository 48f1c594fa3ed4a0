-- STOP: request the stop of a run.
-- Arguments: run, or '*' for the session's current run; who asks
-- Result: {'ACCEPTED', run, node} | {'PENDING'}: a tombstone waits for the claim | {'ENDED', run, state, node}
--   | {'NOT_RUNNING', state}
-- Guarantees: a stop affects only the run that it was accepted for. It is stored before it is signalled, so the
-- owner gets it with its next heartbeat if the signal is lost. Repeating it changes nothing.
local run, by = ARGV[7], ARGV[8]

local s = read_session()
if run == '*' then
  if not s.running then return { 'NOT_RUNNING', s.state or 'IDLE' } end
  run = s.run
else
  local known = redis.call('HMGET', record(run), 'state', 'node')
  if terminal(known[1]) then return { 'ENDED', run, known[1], known[2] or '' } end
  if not (s.running and s.run == run) then
    redis.call('ZREMRANGEBYSCORE', tombstones, '-inf', int(now))
    redis.call('ZADD', tombstones, int(now + tombstone_ttl), run)
    redis.call('ZREMRANGEBYRANK', tombstones, 0, -17)
    redis.call('PEXPIRE', tombstones, tombstone_ttl)
    return { 'PENDING' }
  end
end
if s.exp <= now then
  reap(s)
  local ended = redis.call('HMGET', record(run), 'state', 'node')
  return { 'ENDED', run, ended[1], ended[2] or '' }
end
if s.stop ~= run then
  redis.call('HSET', session, 'stop', run, 'stop_at', int(now), 'stop_by', by)
  redis.call('HSET', record(run), 'stop_requested', '1', 'stop_at', int(now))
end
-- Signal again also if it was accepted before: the first signal may have been lost.
redis.call('PUBLISH', channel .. s.owner, run .. ' ' .. s.tok)
return { 'ACCEPTED', run, s.owner }

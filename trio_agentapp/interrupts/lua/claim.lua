-- CLAIM: run, node, nonce -> {'OK', token} | {'BUSY', run, ms left} | {'ENDED', state, reason}
local run, node, nonce = ARGV[7], ARGV[8], ARGV[9]

local known = redis.call('HMGET', record(run), 'state', 'reason')
if terminal(known[1]) then return { 'ENDED', known[1], known[2] or '' } end

local expiry = redis.call('ZSCORE', tombstones, run)
if expiry then
  redis.call('ZREM', tombstones, run)
  if tonumber(expiry) > now then
    conclude(run, 'STOPPED', 'stopped_before_start', node, '0', { 'stop_requested', '1' })
    return { 'ENDED', 'STOPPED', 'stopped_before_start' }
  end
end

local s = read_session()
if s.running then
  if s.run == run and s.owner == node and s.nonce == nonce then
    -- A retry: the first answer was lost.
    redis.call('HSET', session, 'exp', int(now + lease), 'last', int(now))
    redis.call('PEXPIRE', session, session_ttl)
    return { 'OK', s.tok }
  end
  if s.exp > now then return { 'BUSY', s.run, int(s.exp - now) } end
  reap(s)
  if s.run == run then
    -- It was this very run, claimed by another before: it has its end now, and terminal states have no way out.
    local ended = redis.call('HMGET', record(run), 'state', 'reason')
    return { 'ENDED', ended[1], ended[2] or '' }
  end
end

-- The time part keeps tokens growing when the record had expired or was lost.
local tok = int(math.max(tonumber(s.tok or 0) + 1, micros))
redis.call('HSET', session, 'state', 'RUNNING', 'run', run, 'owner', node, 'nonce', nonce, 'tok', tok,
           'exp', int(now + lease), 'last', int(now))
redis.call('HDEL', session, 'stop', 'stop_at', 'stop_by')
redis.call('PEXPIRE', session, session_ttl)
redis.call('HSET', record(run), 'state', 'RUNNING', 'tok', tok, 'node', node, 'started', int(now))
redis.call('PEXPIRE', record(run), session_ttl)
return { 'OK', tok }

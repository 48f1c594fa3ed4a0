-- CLAIM: ask for the session.
-- Arguments: run, node, nonce, place ('', 'last' or 'first'), limit of queued runs, fallback, events...
--   fallback: the terminal event for the run if its owner dies. The run record keeps it in the field `farewell`.
--   events: all events of the run if it is stopped before it starts. Both are empty if this server keeps no events.
-- Result: {'OK', token} | {'BUSY', run, ms left} | {'QUEUED', run, runs ahead} | {'FULL', run}
--   | {'ENDED', state, reason}
-- Guarantees: a session has one owner at a time, and its tokens only grow. A repeated claim (same run, node and
-- nonce) gets the same token. Queued runs are granted in order, and no other run before them.
local run, node, nonce, place, places = ARGV[7], ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[11])
local fallback = ARGV[12]

local known = redis.call('HMGET', record(run), 'state', 'reason')
if terminal(known[1]) then return { 'ENDED', known[1], known[2] or '' } end

local expiry = redis.call('ZSCORE', tombstones, run)
if expiry then
  redis.call('ZREM', tombstones, run)
  if tonumber(expiry) > now then
    for i = 13, #ARGV - 1 do redis.call('XADD', base .. 'e:' .. run, int(i - 12) .. '-0', 'e', ARGV[i]) end
    conclude(run, 'STOPPED', 'stopped_before_start', node, '0', { 'stop_requested', '1' }, ARGV[13] and ARGV[#ARGV])
    return { 'ENDED', 'STOPPED', 'stopped_before_start' }
  end
end

local s = read_session()
local active, left = false, 0
if s.running then
  if s.run == run and s.owner == node and s.nonce == nonce then
    -- The owner repeats its claim: the first answer was lost.
    redis.call('HSET', session, 'exp', int(now + lease), 'last', int(now))
    redis.call('PEXPIRE', session, session_ttl)
    return { 'OK', s.tok }
  end
  if s.exp > now then
    active, left = s.run, s.exp - now
  else
    reap(s)
    if s.run == run then
      -- The expired lease was that of this run, claimed by another node. The run has ended.
      local ended = redis.call('HMGET', record(run), 'state', 'reason')
      return { 'ENDED', ended[1], ended[2] or '' }
    end
  end
end

local first = first_in_queue()
-- The run is queued by another node, which got the same request. It keeps the place.
if redis.call('ZSCORE', queue, run) and redis.call('HGET', record(run), 'node') ~= node then
  return { 'BUSY', run, int(left) }
end
if active or (first and first ~= run) then
  -- A second claim of the running run must not wait for itself.
  if place == '' or active == run then return { 'BUSY', active or first, int(left) } end
  if not redis.call('ZSCORE', queue, run) then
    if redis.call('ZCARD', queue) >= places then return { 'FULL', active or first } end
    -- The place 'first' is before all places 'last', and after earlier places 'first'.
    local order = micros
    if place == 'first' then order = micros - 5e15 end
    redis.call('ZADD', queue, int(order), run)
    -- If the session is free, a run with the place 'first' may be the next one at once.
    first = redis.call('ZRANGE', queue, 0, 0)[1]
  end
end
if active or (first and first ~= run) then
  redis.call('ZADD', queue_ends, int(now + lease), run)
  redis.call('PEXPIRE', queue, session_ttl)
  redis.call('PEXPIRE', queue_ends, session_ttl)
  redis.call('HSET', record(run), 'state', 'IDLE', 'node', node)
  redis.call('PEXPIRE', record(run), lease)
  return { 'QUEUED', active or first, int(redis.call('ZRANK', queue, run)) }
end
leave_queue(run)

-- The time lets tokens grow even if the record has expired or was lost.
local tok = int(math.max(tonumber(s.tok or 0) + 1, micros))
redis.call('HSET', session, 'state', 'RUNNING', 'run', run, 'owner', node, 'nonce', nonce, 'tok', tok,
           'exp', int(now + lease), 'last', int(now))
redis.call('HDEL', session, 'stop', 'stop_at', 'stop_by')
redis.call('PEXPIRE', session, session_ttl)
redis.call('HSET', record(run), 'state', 'RUNNING', 'tok', tok, 'node', node, 'started', int(now))
if fallback ~= '' then redis.call('HSET', record(run), 'farewell', fallback) end
redis.call('PEXPIRE', record(run), session_ttl)
return { 'OK', tok }

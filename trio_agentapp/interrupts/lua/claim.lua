-- CLAIM: run, node, nonce, place ('', 'last', 'first'), places at most, farewell, stillborn...
--   -> {'OK', token} | {'BUSY', run, ms left} | {'QUEUED', run, how many are ahead} | {'FULL', run}
--      | {'ENDED', state, reason}
-- farewell: the terminal event of a run whose owner dies; stillborn: all events of one that is stopped before it
-- starts. Empty where events are not kept here.
local run, node, nonce, place, places = ARGV[7], ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[11])
local farewell = ARGV[12]

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
    -- A retry: the first answer was lost.
    redis.call('HSET', session, 'exp', int(now + lease), 'last', int(now))
    redis.call('PEXPIRE', session, session_ttl)
    return { 'OK', s.tok }
  end
  if s.exp > now then
    active, left = s.run, s.exp - now
  else
    reap(s)
    if s.run == run then
      -- It was this very run, claimed by another before: it has its end now, and terminal states have no way out.
      local ended = redis.call('HMGET', record(run), 'state', 'reason')
      return { 'ENDED', ended[1], ended[2] or '' }
    end
  end
end

local first = first_in_queue()
-- Asked of two nodes at once, it waits at the first: no node takes the turn of a request that another answers.
if redis.call('ZSCORE', queue, run) and redis.call('HGET', record(run), 'node') ~= node then
  return { 'BUSY', run, int(left) }
end
if active or (first and first ~= run) then
  -- Another claim of a run that is running: it must not wait for itself.
  if place == '' or active == run then return { 'BUSY', active or first, int(left) } end
  if not redis.call('ZSCORE', queue, run) then
    if redis.call('ZCARD', queue) >= places then return { 'FULL', active or first } end
    -- Who interrupts comes before all who wait in line, and after those who interrupted before.
    local order = micros
    if place == 'first' then order = micros - 5e15 end
    redis.call('ZADD', queue, int(order), run)
    -- Nobody has the session, and those it came before have not had their turn yet: it is its own.
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

-- The time part keeps tokens growing when the record had expired or was lost.
local tok = int(math.max(tonumber(s.tok or 0) + 1, micros))
redis.call('HSET', session, 'state', 'RUNNING', 'run', run, 'owner', node, 'nonce', nonce, 'tok', tok,
           'exp', int(now + lease), 'last', int(now))
redis.call('HDEL', session, 'stop', 'stop_at', 'stop_by')
redis.call('PEXPIRE', session, session_ttl)
redis.call('HSET', record(run), 'state', 'RUNNING', 'tok', tok, 'node', node, 'started', int(now))
if farewell ~= '' then redis.call('HSET', record(run), 'farewell', farewell) end
redis.call('PEXPIRE', record(run), session_ttl)
return { 'OK', tok }

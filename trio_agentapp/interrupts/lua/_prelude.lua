-- What every script begins with (INTERRUPT-PROTOCOL, sections 3 and 4).
--
-- KEYS[1] is the session record; all other keys share its hash tag, so one script touches one slot.
-- Deadlines are compared with the server's own TIME and with nothing else. Integers are printed with '%.0f':
-- tostring turns 1.7e15 into exponent form.
local base, channel = ARGV[1], ARGV[2]
local lease, session_ttl, retention, tombstone_ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local session, tombstones = KEYS[1], base .. 'x'

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)

local function int(n) return string.format('%.0f', n) end
local function record(run) return base .. 'r:' .. run end
local function terminal(state) return state == 'STOPPED' or state == 'FINISHED' or state == 'ERROR' end

-- The session as it stands; absent fields are false.
local function read_session()
  local v = redis.call('HMGET', session, 'state', 'run', 'owner', 'tok', 'exp', 'nonce', 'stop')
  return { state = v[1], run = v[2], owner = v[3], tok = v[4], exp = tonumber(v[5] or 0), nonce = v[6], stop = v[7],
           running = v[1] == 'RUNNING' }
end

-- Places in the queue of a session: who waits, in which order, and until when without a sign of life.
local queue, queue_ends = base .. 'q', base .. 'qx'
local function leave_queue(run)
  if redis.call('ZREM', queue, run) == 1 then redis.call('ZREM', queue_ends, run) end
end
local function first_in_queue()
  for _, run in ipairs(redis.call('ZRANGEBYSCORE', queue_ends, '-inf', int(now))) do leave_queue(run) end
  return redis.call('ZRANGE', queue, 0, 0)[1]
end

-- Append the terminal event of a run to its stream, after all others: entry ids are sequence numbers plus one, and
-- the number in the event is made to fit. A farewell that was written down beforehand learns its time only now.
local function append_last(run, event)
  local key = base .. 'e:' .. run
  local tail = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  local seq = 0
  if tail[1] then seq = tonumber(string.match(tail[1][1], '^%d+')) end
  seq = math.max(seq, tonumber(string.match(event, '^{"sequence_number":(%d+)')))
  event = string.gsub(event, '^{"sequence_number":%d+', '{"sequence_number":' .. int(seq), 1)
  event = string.gsub(event, '"completed_at":0,', '"completed_at":' .. int(math.floor(now / 1000)) .. ',', 1)
  redis.call('XADD', key, int(seq + 1) .. '-0', 'e', event)
  redis.call('PEXPIRE', key, retention)
end

-- Write a terminal state into a run record, and its event where events are kept here, unless it has one: the first
-- writer wins.
local function conclude(run, state, reason, node, tok, more, event)
  local key = record(run)
  if terminal(redis.call('HGET', key, 'state')) then return end
  leave_queue(run)
  redis.call('HSET', key, 'state', state, 'reason', reason, 'ended', int(now), 'node', node, 'tok', tok)
  for i = 1, #more, 2 do redis.call('HSET', key, more[i], more[i + 1]) end
  redis.call('HDEL', key, 'farewell')
  redis.call('PEXPIRE', key, retention)
  if event and event ~= '' then append_last(run, event) end
  redis.call('PUBLISH', base .. 'w', run)
end

-- Take the session from its run: nobody owns it any more.
local function free(state)
  redis.call('HSET', session, 'state', state, 'exp', '0', 'last', int(now))
  redis.call('HDEL', session, 'owner', 'nonce', 'stop', 'stop_at', 'stop_by')
  redis.call('PEXPIRE', session, session_ttl)
end

-- End the run whose owner let its lease expire.
local function reap(s)
  local more = {}
  if s.stop == s.run then more = { 'stop_requested', '1' } end
  local farewell = redis.call('HGET', record(s.run), 'farewell')
  conclude(s.run, 'ERROR', 'owner_lost', s.owner or '', s.tok or '0', more, farewell)
  free(redis.call('HGET', record(s.run), 'state'))
end

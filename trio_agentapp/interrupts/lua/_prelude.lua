-- The beginning of every script on a session. A script is atomic, and may be repeated if its answer was lost.
--
-- KEYS[1]: the session record. All other keys have its hash tag, so a script uses one slot.
-- ARGV[1]: the common beginning of these keys. ARGV[2]: the beginning of the names of the nodes' channels.
-- ARGV[3..6]: durations in ms: lease, session record, record of an ended run, tombstone.
-- ARGV[7..]: the arguments of the script.
--
-- Deadlines are compared with the server's TIME only, never with a node's clock. Integers are printed with '%.0f':
-- tostring prints 1.7e15 with an exponent.
local base, channel = ARGV[1], ARGV[2]
local lease, session_ttl, retention, tombstone_ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local session, tombstones = KEYS[1], base .. 'x'

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)

local function int(n) return string.format('%.0f', n) end
local function record(run) return base .. 'r:' .. run end
local function terminal(state) return state == 'STOPPED' or state == 'FINISHED' or state == 'ERROR' end

-- Read the session record. Missing fields are false.
local function read_session()
  local v = redis.call('HMGET', session, 'state', 'run', 'owner', 'tok', 'exp', 'nonce', 'stop')
  return { state = v[1], run = v[2], owner = v[3], tok = v[4], exp = tonumber(v[5] or 0), nonce = v[6], stop = v[7],
           running = v[1] == 'RUNNING' }
end

-- The queue of a session: its runs in order, and the time at which each place expires unless the run claims again.
local queue, queue_ends = base .. 'q', base .. 'qx'
local function leave_queue(run)
  if redis.call('ZREM', queue, run) == 1 then redis.call('ZREM', queue_ends, run) end
end
local function first_in_queue()
  for _, run in ipairs(redis.call('ZRANGEBYSCORE', queue_ends, '-inf', int(now))) do leave_queue(run) end
  return redis.call('ZRANGE', queue, 0, 0)[1]
end

-- Append the terminal event of a run to its stream. An entry id is the sequence number plus one (Redis refuses
-- 0-0). The number in the event is set to follow the last event, and its time to that of the record.
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

-- Write the terminal state of a run, and its terminal event if this server keeps events. The first writer wins: if
-- the run has a terminal state already, nothing changes.
local function conclude(run, state, reason, node, tok, more, event)
  local key = record(run)
  if terminal(redis.call('HGET', key, 'state')) then return end
  leave_queue(run)
  redis.call('HSET', key, 'state', state, 'reason', reason, 'ended', int(now), 'node', node, 'tok', tok)
  for i = 1, #more, 2 do redis.call('HSET', key, more[i], more[i + 1]) end
  redis.call('HDEL', key, 'farewell', 'questions')
  redis.call('PEXPIRE', key, retention)
  if event and event ~= '' then append_last(run, event) end
  redis.call('PUBLISH', base .. 'w', run)
end

-- Free the session: remove its owner.
local function free(state)
  redis.call('HSET', session, 'state', state, 'exp', '0', 'last', int(now))
  redis.call('HDEL', session, 'owner', 'nonce', 'stop', 'stop_at', 'stop_by')
  redis.call('PEXPIRE', session, session_ttl)
end

-- End the run of an expired lease with its fallback event, and free the session.
local function reap(s)
  local more = {}
  if s.stop == s.run then more = { 'stop_requested', '1' } end
  local fallback = redis.call('HGET', record(s.run), 'farewell')
  conclude(s.run, 'ERROR', 'owner_lost', s.owner or '', s.tok or '0', more, fallback)
  free(redis.call('HGET', record(s.run), 'state'))
end

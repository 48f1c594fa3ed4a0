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

-- Write a terminal state into a run record, unless it has one: the first writer wins.
local function conclude(run, state, reason, node, tok, more)
  local key = record(run)
  if terminal(redis.call('HGET', key, 'state')) then return end
  redis.call('HSET', key, 'state', state, 'reason', reason, 'ended', int(now), 'node', node, 'tok', tok)
  for i = 1, #more, 2 do redis.call('HSET', key, more[i], more[i + 1]) end
  redis.call('PEXPIRE', key, retention)
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
  conclude(s.run, 'ERROR', 'owner_lost', s.owner or '', s.tok or '0', more)
  free(redis.call('HGET', record(s.run), 'state'))
end

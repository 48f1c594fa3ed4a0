-- Operations on the record of one task.
-- KEYS[1]: the hash of the record. KEYS[2]: the index of waiting tasks, by the time when their message was sent.
-- ARGV: operation, task id, retention and lease in ms, then the arguments of the operation.
-- Every operation may be repeated. Each first ends a task whose worker has not renewed its claim for a lease.
--   -> {answer, field, value, ...}: the record after the operation, without fields if there is none
local key, waiting = KEYS[1], KEYS[2]
local operation, id = ARGV[1], ARGV[2]
local retention, lease = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function int(number) return string.format('%.0f', number) end

local function field(name) return redis.call('HGET', key, name) end

local function finish(state, code, message)
  redis.call('HSET', key, 'state', state, 'code', code, 'message', message, 'ended', int(now))
  redis.call('HDEL', key, 'until', 'sent')
  redis.call('PEXPIRE', key, retention)
end

local state = field('state')
if state == 'running' and tonumber(field('until')) <= now then
  finish('failed', 'worker_lost', '')
  state = 'failed'
end
local mine = state and ARGV[5] and field('worker') == ARGV[5]
local answer = state or 'unknown'
if state ~= 'pending' then redis.call('ZREM', waiting, id) end

if operation == 'give' then
  -- name, user or '', whether there is a user, message
  if not state then
    redis.call('HSET', key, 'state', 'pending', 'name', ARGV[5], 'created', int(now), 'sent', ARGV[8])
    if ARGV[7] == '1' then redis.call('HSET', key, 'user', ARGV[6]) end
    redis.call('PEXPIRE', key, retention)
    redis.call('ZADD', waiting, int(now), id)
    answer = 'given'
  end
elseif operation == 'withdraw' then
  if state == 'pending' then
    redis.call('DEL', key)
    redis.call('ZREM', waiting, id)
  end
elseif operation == 'claim' then
  -- worker: a new id for each delivery
  if state == 'pending' then
    redis.call('HSET', key, 'state', 'running', 'worker', ARGV[5], 'started', int(now), 'until', int(now + lease))
    redis.call('HDEL', key, 'sent')
    redis.call('ZREM', waiting, id)
    answer = 'claimed'
  elseif state == 'running' and mine then
    -- The worker repeats its claim, because the answer was lost.
    redis.call('HSET', key, 'until', int(now + lease))
    answer = 'claimed'
  end
elseif operation == 'beat' then
  -- worker
  if state == 'running' and mine then
    redis.call('HSET', key, 'until', int(now + lease))
    redis.call('PEXPIRE', key, retention)
    answer = field('cancel') and 'stop' or 'ok'
  else
    answer = 'lost'
  end
  return { answer }
elseif operation == 'finish' then
  -- worker, state, whether there is a result, result, code, message
  if state == 'running' and mine then
    if ARGV[7] == '1' then redis.call('HSET', key, 'result', ARGV[8]) end
    finish(ARGV[6], ARGV[9], ARGV[10])
    answer = ARGV[6]
  end
elseif operation == 'cancel' then
  if state == 'pending' then
    redis.call('HSET', key, 'cancel', '1')
    redis.call('ZREM', waiting, id)
    finish('cancelled', 'stopped', '')
  elseif state == 'running' then
    redis.call('HSET', key, 'cancel', '1')
  end
end
local reply = redis.call('HGETALL', key)
table.insert(reply, 1, answer)
return reply

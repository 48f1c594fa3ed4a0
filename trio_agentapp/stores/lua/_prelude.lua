-- The beginning of every script of a shelf. A script is atomic, and may be repeated if its answer was lost.
--
-- KEYS: record, turns and messages of a session. They share a hash tag.
-- ARGV[1]: nonce of the call. ARGV[2]: fencing token, or ''. ARGV[3]: ms for which a deleted session is remembered.
-- ARGV[4..]: the arguments of the script.
--
-- Fields of the record: v (value), b (version before), w (token of the writer), fence, count and size (of all
-- turns),
-- recent (answers to the last calls). A turn is "token count size run" in one list; the other list has its
-- messages.
-- Tokens stay strings: as Lua numbers, large ones would lose their last digits.
local record, turns, messages = KEYS[1], KEYS[2], KEYS[3]
local nonce, token, keep_deleted = ARGV[1], ARGV[2], ARGV[3]

local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

-- Return the answer to this call if it was executed before, and its answer was lost.
local function answered()
  local recent = redis.call('HGET', record, 'recent')
  local at = recent and string.find(recent, nonce .. '=', 1, true)
  return at and string.sub(recent, at + #nonce + 1, at + #nonce + 1)
end

-- Return the fence if the token is below it; then nothing may be written.
local function stale()
  local fence = redis.call('HGET', record, 'fence') or '0'
  return token ~= '' and less(token, fence) and fence
end

-- Add to the count and size of all turns.
local function weigh(count, size)
  return redis.call('HINCRBY', record, 'count', count), redis.call('HINCRBY', record, 'size', size)
end

-- Remove the first or the last turn.
local function drop(pop)
  local count, size = string.match(redis.call(pop, turns), '^%d+ (%d+) (%d+) ')
  redis.call(pop, messages)
  return weigh('-' .. count, '-' .. size)
end

-- Raise the fence, remember the answers to the last eight calls, and set or clear the time to live.
--
-- Call this last. A full server refuses a script if its first write needs memory, but does not interrupt a script.
-- So
-- saves are refused, and deletions and undoing are not.
local function done(answer)
  local recent = redis.call('HGET', record, 'recent') or ''
  redis.call('HSET', record, 'recent', nonce .. '=' .. answer .. string.sub(recent, 1, 7 * (#nonce + 2)))
  if token ~= '' then redis.call('HSET', record, 'fence', token) end
  if redis.call('HEXISTS', record, 'v') == 1 or redis.call('EXISTS', turns) == 1 then
    redis.call('PERSIST', record)
  else
    redis.call('PEXPIRE', record, keep_deleted)
  end
  return { 'OK', answer }
end

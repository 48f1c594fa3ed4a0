-- What every script of a shelf begins with: one session's record, turns and messages, which share its hash tag.
--
-- The record has v (the value), b (the one before), w (who wrote it), fence, count and size (of the turns), recent.
-- A turn is "token count size run" in one list, and its messages as JSON at the same place of the other.
-- Tokens stay texts: as numbers of Lua great ones would lose their last digits.
local record, turns, messages = KEYS[1], KEYS[2], KEYS[3]
local nonce, token, keep_deleted = ARGV[1], ARGV[2], ARGV[3]

local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

-- The answer to this very call, if it has come before and the answer was lost.
local function answered()
  local recent = redis.call('HGET', record, 'recent')
  local at = recent and string.find(recent, nonce .. '=', 1, true)
  return at and string.sub(recent, at + #nonce + 1, at + #nonce + 1)
end

-- The fence, if the token is below it: then nothing may be written.
local function stale()
  local fence = redis.call('HGET', record, 'fence') or '0'
  return token ~= '' and less(token, fence) and fence
end

-- Add to count and size of the turns.
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
-- This comes last. A full server refuses a script whose first write takes memory, and lets one go on that has begun:
-- so saves are refused, and what deletes or undoes is not.
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

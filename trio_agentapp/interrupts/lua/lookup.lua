-- The hash that leads from a run id alone to its session. KEYS[1] is it.
-- ARGV: 'claim', ms, digest, user, session -> {digest, 1 if it was stopped before}
--       'stop', ms, user or '' -> {digest or '', user or ''}; where no session is known, the stop is noted
-- The first session that names a run id keeps it. A stop holds for one user, or for all.
local lead = KEYS[1]

if ARGV[1] == 'claim' then
  if redis.call('HEXISTS', lead, 'h') == 0 then
    redis.call('HSET', lead, 'h', ARGV[3], 'user', ARGV[4], 'session', ARGV[5])
  end
  redis.call('PEXPIRE', lead, ARGV[2])
  -- The note of a stop stays until its tombstone is written: a claim whose answer was lost asks again.
  local noted = redis.call('HMGET', lead, 'stop:', 'stop:' .. ARGV[4])
  return { redis.call('HGET', lead, 'h'), (noted[1] or noted[2]) and 1 or 0 }
end

local known = redis.call('HMGET', lead, 'h', 'user')
if not known[1] then
  redis.call('HSET', lead, 'stop:' .. ARGV[3], '1')
  redis.call('PEXPIRE', lead, ARGV[2])
end
return { known[1] or '', known[2] or '' }

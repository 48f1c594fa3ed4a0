-- LOOKUP: the session of a run id.
-- Key: the run lookup, a hash: h (digest of the session), user, session, and 'stop:' or 'stop:<user>' for stops
--   of a run that has not claimed its session yet
-- Arguments and results:
--   'claim', time to live, digest, user, session -> {digest, 1 if the run was stopped before}
--   'stop', time to live, user or ''             -> {digest or '', user or ''}. If the session is not known, the
--                                                   stop is stored here until the claim.
-- Guarantees: the first session that claims a run id keeps it. A stop of one user does not replace that of another.
local lookup = KEYS[1]

if ARGV[1] == 'claim' then
  if redis.call('HEXISTS', lookup, 'h') == 0 then
    redis.call('HSET', lookup, 'h', ARGV[3], 'user', ARGV[4], 'session', ARGV[5])
  end
  redis.call('PEXPIRE', lookup, ARGV[2])
  -- The note stays until the tombstone is written, since a claim is repeated if its answer was lost.
  local noted = redis.call('HMGET', lookup, 'stop:', 'stop:' .. ARGV[4])
  return { redis.call('HGET', lookup, 'h'), (noted[1] or noted[2]) and 1 or 0 }
end

local known = redis.call('HMGET', lookup, 'h', 'user')
if not known[1] then
  redis.call('HSET', lookup, 'stop:' .. ARGV[3], '1')
  redis.call('PEXPIRE', lookup, ARGV[2])
end
return { known[1] or '', known[2] or '' }

-- FINISH: write the terminal state of a run, and free its session.
-- Arguments: run, token or '', node, nonce, state, reason, cleanup, cleanup_interrupted, stop_requested,
--   terminal event or '', events... (written before the terminal event if the run has no events yet)
-- Result: the fields of the run record, as HGETALL returns them
-- Guarantees: the first terminal state stays. Only the session's owner frees it.
local run, tok, node, nonce, state, reason = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local cleanup, interrupted, stop_requested, event = ARGV[13], ARGV[14], ARGV[15], ARGV[16]

local s = read_session()
local more = { 'cleanup', cleanup, 'cleanup_interrupted', interrupted }
if stop_requested == '1' or (s.running and s.run == run and s.stop == run) then
  more[#more + 1] = 'stop_requested'
  more[#more + 1] = '1'
end
-- No token means that the answer to the claim was lost. If the claim succeeded, the session record has the token.
local mine = s.running and s.run == run and ((tok ~= '' and s.tok == tok) or (tok == '' and s.owner == node and s.nonce == nonce))
local known = tok
if known == '' then known = mine and s.tok or '0' end
-- A live or queued run may be ended only by its own claim, not by another claim with the same run id that was given up.
first_in_queue()
local elsewhere = redis.call('ZSCORE', queue, run) and redis.call('HGET', record(run), 'node') ~= node
if mine or not (elsewhere or (s.running and s.run == run)) then
  local stream = base .. 'e:' .. run
  local unwritten = event ~= '' and not terminal(redis.call('HGET', record(run), 'state'))
  if unwritten and #ARGV > 16 and redis.call('EXISTS', stream) == 0 then
    for i = 17, #ARGV do redis.call('XADD', stream, int(i - 16) .. '-0', 'e', ARGV[i]) end
  end
  conclude(run, state, reason, node, known, more, event)
end
if mine then free(redis.call('HGET', record(run), 'state')) end
return redis.call('HGETALL', record(run))

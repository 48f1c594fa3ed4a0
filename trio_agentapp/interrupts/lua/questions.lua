-- QUESTIONS: replace the open questions in the record of a running run.
-- Arguments: run, token, questions ('' if none is open)
-- Result: 1, or 0 if the caller does not own the session; then nothing changes
-- The record is kept as long as the lease is renewed (HEARTBEAT); the end of the run removes the questions.
local run, tok, questions = ARGV[7], ARGV[8], ARGV[9]

local s = read_session()
if not (s.running and s.run == run and s.tok == tok) then return 0 end
if questions == '' then
  redis.call('HDEL', record(run), 'questions')
else
  redis.call('HSET', record(run), 'questions', questions)
end
return 1

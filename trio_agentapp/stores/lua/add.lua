-- ADD: append a turn, and remove the oldest turns beyond the limits.
-- Arguments: count, messages, run, limit of messages, limit of bytes
-- Result: {'OK', '1'} | {'STALE', fence}
-- Guarantee: a run has one turn; a repeated call changes nothing.
local count, added, run = ARGV[4], ARGV[5], ARGV[6]
local most_messages, most_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])

for _, turn in ipairs(redis.call('LRANGE', turns, 0, -1)) do
  if string.match(turn, '^%d+ %d+ %d+ (.*)$') == run then return { 'OK', '1' } end
end
local fence = stale()
if fence then return { 'STALE', fence } end

local size = string.format('%.0f', #added)
redis.call('RPUSH', turns, token .. ' ' .. count .. ' ' .. size .. ' ' .. run)
redis.call('RPUSH', messages, added)
local total_count, total_size = weigh(count, size)
while (total_count > most_messages or total_size > most_bytes) and redis.call('LLEN', turns) > 1 do
  total_count, total_size = drop('LPOP')
end
return done('1')

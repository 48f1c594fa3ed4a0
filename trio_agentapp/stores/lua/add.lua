-- ADD: count, messages, run, most messages, most bytes -> {'OK', '1'} | {'STALE', fence}
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

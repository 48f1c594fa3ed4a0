-- Tasks that have waited for longer than an age. KEYS[1]: the index of waiting tasks. ARGV: the age in ms, a limit.
-- Each task is returned to one caller only; it is returned again after the same age.
--   -> {task id, ...}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function int(number) return string.format('%.0f', number) end

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now - tonumber(ARGV[1])), 'LIMIT', 0, tonumber(ARGV[2]))
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], int(now), id) end
return due

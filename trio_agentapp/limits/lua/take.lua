-- TAKE: note tokens that one node has given out, for several principals. Keys: their buckets, all in one hash slot.
-- Arguments: for each key, the milliseconds in which the tokens grow again. Result: for each key, the milliseconds
-- until its bucket is full. Guarantee: a bucket is the time to live of its key, so it needs no clock of the nodes,
-- and a full bucket takes no memory.
local full = {}
for place, key in ipairs(KEYS) do
  full[place] = math.max(redis.call('PTTL', key), 0) + tonumber(ARGV[place])
  redis.call('SET', key, '', 'PX', full[place])
end
return full

-- UNPIN: delete a pin. Key: the pin. Argument: its value. Result: 1 if it was deleted, else 0.
-- Guarantee: a pin that another request has set meanwhile stays.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0

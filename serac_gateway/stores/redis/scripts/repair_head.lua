-- Write the head of a log, if the log still ends with that entry.
--
-- KEYS  1 log  2 head
-- ARGV  log_id, digest, length
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if not last[1] or last[1][1] ~= ARGV[1] or redis.call('XLEN', KEYS[1]) ~= tonumber(ARGV[3]) then
  return 0
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'log_id', ARGV[1], 'digest', ARGV[2], 'length', ARGV[3])
return 1

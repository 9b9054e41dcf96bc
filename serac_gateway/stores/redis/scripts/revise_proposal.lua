-- The next revision of a proposal's head, if the one before is what the caller has read.
--
-- KEYS  1 proposals  2 open
-- ARGV  1 id  2 revision that it must have  3 next revision and head  4 "1" if it stays open
-- Returns the revision that it had, "" if there is none.
local revision = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+') or ''
if revision == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  if ARGV[4] ~= '1' then
    redis.call('ZREM', KEYS[2], ARGV[1])
  end
end
return revision

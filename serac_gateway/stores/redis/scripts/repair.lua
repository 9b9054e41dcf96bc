-- One remedy, if what is stored is still what was found damaged.
--
-- KEYS  1 current  2 vectors  3 versions of the edit  4 ids  5... ids in each state
-- ARGV  1 remedy  2 edit id  3 "1" if there is a current record  4 that record  5 number of versions
--       6 number of the edit's state, 0 for none  7 record, or version, to write
local remedy, edit_id, record = ARGV[1], ARGV[2], redis.call('HGET', KEYS[1], ARGV[2])
if (record and '1' or '0') ~= ARGV[3] or record and record ~= ARGV[4]
    or redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[5]) then
  return 0
end
if remedy == 'rewrite_record' then
  redis.call('HSET', KEYS[1], edit_id, ARGV[7])
elseif remedy == 'rewrite_version' then
  redis.call('LSET', KEYS[3], -1, ARGV[7])
elseif remedy == 'remove' then
  redis.call('HDEL', KEYS[1], edit_id)
  redis.call('HDEL', KEYS[2], edit_id)
  redis.call('ZREM', KEYS[4], edit_id)
end
if remedy ~= 'rewrite_version' then
  local state = tonumber(ARGV[6])
  for position = 5, #KEYS do
    if position - 4 == state then
      redis.call('ZADD', KEYS[position], 0, edit_id)
      redis.call('ZADD', KEYS[4], 0, edit_id)
    else
      redis.call('ZREM', KEYS[position], edit_id)
    end
  end
end
return 1

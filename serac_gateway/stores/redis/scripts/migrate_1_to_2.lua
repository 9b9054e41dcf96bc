-- A batch of schema 1's log entries gets its place in a new, chained log, and their versions get salts; or,
-- with no entries, the new log takes the old one's place. All or nothing, and only once: a batch that does
-- not go on where the new log ends is refused, so two gateways that migrate at a time do no harm.
--
-- KEYS  1 old log  2 new log  3 new log's head  4 head, then for each entry the versions of its edit
-- ARGV  1 log_id that the new log ends with, "" for none  2 its digest after this batch  3 its length then
--       then for each entry: log_id, position of the version, salt and record, number of fields, fields
local old, new, new_head, head = unpack(KEYS, 1, 4)
if (redis.call('HGET', new_head, 'log_id') or '') ~= ARGV[1] then
  return 0
end
if #KEYS == 4 then
  local last = redis.call('XREVRANGE', old, '+', '-', 'COUNT', 1)
  if last[1][1] ~= ARGV[1] then
    return 0
  end
  redis.call('RENAME', new, old)
  redis.call('RENAME', new_head, head)
  return 1
end
local position, log_id = 4, nil
for number = 5, #KEYS do
  local version, element, fields
  log_id, version, element, fields = unpack(ARGV, position, position + 3)
  redis.call('XADD', new, log_id, unpack(ARGV, position + 4, position + 3 + fields))
  redis.call('LSET', KEYS[number], version, element)
  position = position + 4 + fields
end
redis.call('HSET', new_head, 'log_id', log_id, 'digest', ARGV[2], 'length', ARGV[3])
return 1

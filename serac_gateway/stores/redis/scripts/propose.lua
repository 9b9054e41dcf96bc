-- Opens a proposal, if every version that it builds on is current. Everything that can refuse comes first.
--
-- KEYS  1 proposals  2 their changes  3 their edits  4 ids  5 open  6 result of the idempotency key
--       7... for each change the versions of its edit
-- ARGV  1 id  2 revision and head  3 changes  4 most that may be open  5 seconds to remember the result, 0: no key
--       6 request fingerprint  7... for each change: edit id, version that it makes
local proposals, proposed, proposed_edits, ids, open, result = unpack(KEYS, 1, 6)
local id, ttl_s = ARGV[1], tonumber(ARGV[5])
if ttl_s > 0 then
  local first = redis.call('HMGET', result, 'fingerprint', 'proposal')
  if first[1] then
    return first[1] == ARGV[6] and {'replayed', first[2]} or {'key_reused'}
  end
end
if redis.call('ZCARD', open) >= tonumber(ARGV[4]) then
  return {'too_many_open'}
end
for number = 7, #KEYS do
  local edit_id, version = ARGV[2 * number - 7], ARGV[2 * number - 6]
  local current = redis.call('LLEN', KEYS[number])
  if current ~= tonumber(version) - 1 then
    return {version == '1' and 'id_taken' or current == 0 and 'no_such_edit' or 'stale_version', edit_id, version,
      tostring(current)}
  end
end
redis.call('HSET', proposals, id, ARGV[2])
redis.call('HSET', proposed, id, ARGV[3])
for number = 7, #KEYS do
  redis.call('ZADD', proposed_edits, 0, ARGV[2 * number - 7] .. ' ' .. id)
end
redis.call('ZADD', ids, 0, id)
redis.call('ZADD', open, 0, id)
if ttl_s > 0 then
  redis.call('HSET', result, 'fingerprint', ARGV[6], 'proposal', id)
  redis.call('EXPIRE', result, ttl_s)
end
return {'opened', id}

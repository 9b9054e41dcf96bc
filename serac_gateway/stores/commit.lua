#!lua
-- One commit, all or nothing. A script error would keep what was written before it, so everything
-- that can refuse comes first and the writes come last. Without flags in its first line, the
-- script does not even start on a server that is full, read-only or unable to persist.
--
-- KEYS  1 current  2 versions of this edit  3 vectors  4 log  5 result of the idempotency key
--       6 ids  7... ids in each state
-- ARGV  1 action  2 edit id  3 version  4 record  5 vectors  6 which of KEYS 7... is the new state's
--       7 seconds to remember the result, 0 for no key  8 request fingerprint
--       9 "1" if the namespace is known to stand in the set of namespaces
local current, versions, vectors, log, result, ids = unpack(KEYS, 1, 6)
local action, edit_id, version = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ttl_s, fingerprint = tonumber(ARGV[7]), ARGV[8]

if ttl_s > 0 then
  local first = redis.call('HMGET', result, 'fingerprint', 'version', 'log_id', 'edit_id')
  if first[1] == fingerprint then
    return {'replayed', first[2], first[3], first[4]}
  elseif first[1] then
    return {'key_reused'}
  end
end

local current_version = redis.call('LLEN', versions)
if action == 'add' then
  if current_version > 0 then
    return {'id_taken'}
  end
elseif current_version == 0 then
  return {'no_such_edit'}
elseif current_version ~= version - 1 then
  return {'stale_version', tostring(current_version)}
end

if ARGV[9] ~= '1' and redis.call('EXISTS', log) == 0 then
  return {'unregistered'}
end

redis.call('RPUSH', versions, ARGV[4])
redis.call('HSET', current, edit_id, ARGV[4])
redis.call('HSET', vectors, edit_id, ARGV[5])
redis.call('ZADD', ids, 0, edit_id)
for position = 7, #KEYS do
  if position - 6 == tonumber(ARGV[6]) then
    redis.call('ZADD', KEYS[position], 0, edit_id)
  else
    redis.call('ZREM', KEYS[position], edit_id)
  end
end
local log_id = redis.call('XADD', log, '*', 'action', action, 'edit_id', edit_id, 'version', ARGV[3])
if ttl_s > 0 then
  redis.call('HSET', result, 'fingerprint', fingerprint, 'version', ARGV[3], 'log_id', log_id, 'edit_id', edit_id)
  redis.call('EXPIRE', result, ttl_s)
end
return {'committed', ARGV[3], log_id, edit_id}

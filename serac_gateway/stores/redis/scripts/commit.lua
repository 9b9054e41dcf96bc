-- One commit of one or several changes, all or nothing. A script error would keep what was written before
-- it, so everything that can refuse comes first and the writes come last; of those the first is the log
-- entry, which the server itself may refuse. Without flags in its first line, the script does not even
-- start on a server that is full, read-only or unable to persist. sha256.lua stands before it.
--
-- KEYS  1 current  2 vectors  3 log  4 head  5 result of the idempotency key  6 ids
--       7 proposals  8 their changes  9 their edits  10 their ids  11 open ones
--       12... ids in each state, then for each change the versions of its edit
-- ARGV  1 number of states  2 seconds to remember the result, 0 for no key  3 request fingerprint
--       4 genesis of the log  5 log_id that the log must end with, "" for any
--       6 approval, "" for none  7 proposal to close, "" for none  8 its revision  9 its closed head
--       10 number of changes, then for each change:
--         action, edit id, version, salt, record, vectors ("": as they are), which state, author ("": none),
--         content digest, digest of the fields (raw), number of tombstones, tombstones of older versions
--       last "1" if the namespace is known to stand in the set of namespaces
local current, vectors, log, head, result, ids, proposals, proposed, proposed_edits = unpack(KEYS, 1, 9)
local states, ttl_s, fingerprint, count = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[10])
local proposal_ids, open = unpack(KEYS, 10, 11)
local approval, proposal, proposal_revision, closed_head = unpack(ARGV, 6, 9)

if ttl_s > 0 then
  local first = redis.call('HMGET', result, 'fingerprint', 'receipt')
  if first[1] == fingerprint then
    return {'replayed', first[2]}
  elseif first[1] then
    return {'key_reused'}
  end
end

if proposal ~= '' then
  local revision = string.match(redis.call('HGET', proposals, proposal) or '', '^%d+')
  if revision ~= proposal_revision then
    return {'proposal_went_on', revision or ''}
  end
end

local changes, position = {}, 11
for number = 1, count do
  local action, edit_id, version, salt, record, packed, state, author, content, fields, tombstones =
    unpack(ARGV, position, position + 10)
  local change = {action = action, edit_id = edit_id, version = version, salt = salt, record = record,
    vectors = packed, state = tonumber(state), author = author, content = content, fields = fields,
    tombstones = tonumber(tombstones), first_tombstone = position + 11, versions = KEYS[11 + states + number]}
  changes[number] = change
  position = position + 11 + change.tombstones

  local current_version = redis.call('LLEN', change.versions)
  if action == 'add' then
    if current_version > 0 then
      return {'id_taken', edit_id}
    end
  elseif current_version == 0 then
    return {'no_such_edit', edit_id}
  elseif current_version ~= tonumber(version) - 1 or action == 'purge' and change.tombstones ~= current_version then
    return {'stale_version', edit_id, version, tostring(current_version)}
  end
end

if ARGV[#ARGV] ~= '1' and redis.call('EXISTS', log) == 0 then
  return {'unregistered'}
end

local ended = redis.call('HMGET', head, 'log_id', 'digest', 'length')
if not ended[1] and redis.call('EXISTS', log, head) > 0 then
  return {'damaged', 'its head is missing, or it is being restored'}
end
if ARGV[5] ~= '' and ARGV[5] ~= (ended[1] or '0-0') then
  return {'log_went_on', ended[1] or '0-0'}
end
local digest, length = ended[2] or ARGV[4], tonumber(ended[3] or '0')
local ms, sequence = string.match(ended[1] or '0-0', '^(%d+)-(%d+)$')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
ms, sequence = tonumber(ms), tonumber(sequence) + 1
if now > ms then
  ms, sequence = now, 0
end

local function raw(hex)
  return (string.gsub(hex, '%x%x', function(pair) return string.char(tonumber(pair, 16)) end))
end

local receipt, log_id = {}, nil
for number, change in ipairs(changes) do
  log_id = string.format('%.0f-%.0f', ms, sequence)
  sequence = sequence + 1
  local previous = digest
  digest = sha256hex(raw(previous) .. change.fields .. log_id)
  local entry = {'action', change.action, 'edit_id', change.edit_id, 'version', change.version,
    'content', change.content, 'previous', previous, 'digest', digest}
  if change.author ~= '' then
    entry[#entry + 1] = 'author'
    entry[#entry + 1] = change.author
  end
  if approval ~= '' then
    entry[#entry + 1] = 'approval'
    entry[#entry + 1] = approval
  end
  local appended = redis.pcall('XADD', log, log_id, unpack(entry))
  if type(appended) == 'table' and appended.err then  -- only of the first: the others' ids follow on it
    return string.find(appended.err, 'equal or smaller') and {'damaged', 'it goes on after its head'} or appended
  end

  for older = 1, change.tombstones do
    redis.call('LSET', change.versions, older - 1, ARGV[change.first_tombstone + older - 1])
  end
  redis.call('RPUSH', change.versions, change.salt .. change.record)
  redis.call('HSET', current, change.edit_id, change.record)
  if change.action == 'purge' then
    redis.call('HDEL', vectors, change.edit_id)
    local named = redis.call('ZRANGE', proposed_edits, '[' .. change.edit_id .. ' ', '(' .. change.edit_id .. '!', 'BYLEX')
    for _, member in ipairs(named) do
      local purged = string.sub(member, #change.edit_id + 2)
      redis.call('HDEL', proposals, purged)
      redis.call('HDEL', proposed, purged)
      redis.call('ZREM', proposal_ids, purged)
      redis.call('ZREM', open, purged)
      redis.call('ZREM', proposed_edits, member)
    end
  elseif change.vectors ~= '' then
    redis.call('HSET', vectors, change.edit_id, change.vectors)
  end
  redis.call('ZADD', ids, 0, change.edit_id)
  for state = 1, states do
    redis.call(state == change.state and 'ZADD' or 'ZREM', KEYS[11 + state],
      unpack(state == change.state and {0, change.edit_id} or {change.edit_id}))
  end
  receipt[number] = change.edit_id .. ' ' .. change.version .. ' ' .. log_id
end
redis.call('HSET', head, 'log_id', log_id, 'digest', digest, 'length', string.format('%.0f', length + count))

if proposal ~= '' then
  redis.call('HSET', proposals, proposal, closed_head)
  redis.call('HDEL', proposed, proposal)
  redis.call('ZREM', open, proposal)
end

receipt = table.concat(receipt, '\n')
if ttl_s > 0 then
  redis.call('HSET', result, 'fingerprint', fingerprint, 'receipt', receipt)
  redis.call('EXPIRE', result, ttl_s)
end
return {'committed', receipt}

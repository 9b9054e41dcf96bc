-- Sets the vectors of those edits whose current version is still the one that they were made of.
--
-- KEYS  1 vectors, then for each edit its versions
-- ARGV  for each edit its id, the version, the vectors
local replaced = 0
for number = 2, #KEYS do
  local edit_id, version, packed = unpack(ARGV, 3 * number - 5, 3 * number - 3)
  if redis.call('LLEN', KEYS[number]) == tonumber(version) then
    redis.call('HSET', KEYS[1], edit_id, packed)
    replaced = replaced + 1
  end
end
return replaced

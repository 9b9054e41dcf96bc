-- Which version each entry of a log made, a line an entry: far cheaper to send and to read than the entries.
--
-- KEYS  1 log
-- ARGV  1 log_id to go on after  2 most entries
-- Returns the last log_id, "" for none, and the lines "edit_id version log_id".
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
local lines, last = {}, ''
for number, entry in ipairs(entries) do
  local edit_id, version = '', ''
  for position = 1, #entry[2], 2 do
    if entry[2][position] == 'edit_id' then
      edit_id = entry[2][position + 1]
    elseif entry[2][position] == 'version' then
      version = entry[2][position + 1]
    end
  end
  last = entry[1]
  lines[number] = edit_id .. ' ' .. version .. ' ' .. last
end
return {last, table.concat(lines, '\n')}

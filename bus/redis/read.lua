#!lua flags=no-writes
-- Reads a part of a room's log, within a bound of bytes.
--
-- KEYS: log, last id, break. ARGV: xrange or xrevrange, where it begins and where it ends, entries at most, bytes at most (0: any).
-- Answers the last id, the newest break, 1 if there is more to be read, and the entries: one at least, however large.

local call = redis.call
local command, from, to = ARGV[1], ARGV[2], ARGV[3]
local most, bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local answer = { call('GET', KEYS[2]), call('GET', KEYS[3]), 0 } -- before the entries: what is read later may only be newer
local n, size, some = 0, 0, 32
if bytes == 0 then bytes, some = math.huge, most + 1 end
repeat
  local read = call(command, KEYS[1], from, to, 'COUNT', math.min(some, most - n + 1))
  for i = 1, #read do
    local entry = read[i]
    size = size + #(entry[2][2] or '') + 50
    if n == most or n > 0 and size > bytes then
      answer[3] = 1
      return answer
    end
    n = n + 1
    answer[n + 3] = entry
  end
  if #read < some then return answer end
  from = '(' .. read[#read][1]
  some = math.max(1, math.min(256, math.floor((bytes - size) / size * n) + 1)) -- as many as are likely to fit
until false

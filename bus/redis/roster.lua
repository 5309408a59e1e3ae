#!lua flags=no-writes
-- Reads who is in a room, in one step.
--
-- KEYS: the room's incarnations. ARGV: the beginning of the names of the keys of their users, how many users to read of each
-- incarnation (0: all), then incarnations and their numbers: those are not read where the number is the same.
-- Answers the incarnations, as HGETALL does, and of each that was read: its id, how many users it has, and its users.

local incarnations = redis.call('HGETALL', KEYS[1])
local most = tonumber(ARGV[2])
local known = {}
for i = 3, #ARGV, 2 do known[ARGV[i]] = ARGV[i + 1] end
local answer = { incarnations }
for i = 1, #incarnations, 2 do
  local inc = incarnations[i]
  if inc ~= 'v' and string.sub(inc, 1, 1) ~= 'x' and known[inc] ~= incarnations[i + 1] then
    local own = ARGV[1] .. inc
    local count = redis.call('HLEN', own)
    local users
    if most > 0 and count > most then
      users = redis.call('HRANDFIELD', own, most, 'WITHVALUES')
    else
      users = redis.call('HGETALL', own)
    end
    answer[#answer + 1] = { inc, count, users }
  end
end
return answer

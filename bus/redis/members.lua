-- Changes who is in a room through one incarnation of a node, and publishes the change.
--
-- KEYS: the room's incarnations (id -> number of its last change; 'x' and id -> when it was reaped, in ms; 'v' -> the room's
-- presence version), the incarnation's users (id -> when the name was chosen, in ms since 1970, a space, the name).
-- ARGV: channel, incarnation, kind, number of the change, number of the change before it, life of the keys in ms, until when
-- the incarnation has its lease, by this server's clock, in ms since 1970, then for each user '+' or '-', id, value.
--
-- The kinds: 'd' changes some users, and only what the change before left; 'w' writes the whole set anew; 'x' reaps the
-- incarnation. Answers the number that the incarnation has now; -1 where the change came too late: the lease has run out, or a
-- later change came first; -2 where the change before is not the last that Redis has: then the node writes the whole set; -3
-- where the incarnation was reaped: then the node needs another.
--
-- Published is: 'w', the version after the change, how many versions it took, incarnation, number before, number, kind, then of
-- 'd' and 'w' for each user '+' or '-', the lengths of id and value, id and value. Kind 'r' is 'w' without the users: they
-- are too many to publish.

local incarnations, own = KEYS[1], KEYS[2]
local inc, kind, number, before, life, leased = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local published = 200 -- users at most
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local had = redis.call('HGET', incarnations, inc) or '0'
local told, body, steps = 0, {}, 0

local function tell(sign, id, value)
  told = told + 1
  if told <= published then body[told] = sign .. #id .. ' ' .. #value .. ' ' .. id .. value end
end

if kind == 'x' then
  number = had
  steps = redis.call('HLEN', own)
  if had ~= '0' then steps = steps + 1 end
  redis.call('UNLINK', own)
  redis.call('HDEL', incarnations, inc)
  -- What the incarnation has sent may arrive late still. It must not bring it back.
  local known = redis.call('HGETALL', incarnations)
  for i = 1, #known, 2 do
    if string.sub(known[i], 1, 1) == 'x' and tonumber(known[i + 1]) < now - 600000 then
      redis.call('HDEL', incarnations, known[i])
    end
  end
  redis.call('HSET', incarnations, 'x' .. inc, now)
else
  if redis.call('HEXISTS', incarnations, 'x' .. inc) == 1 then return -3 end
  if now >= tonumber(leased) then return -1 end
  if kind == 'd' then
    if had ~= before then return -2 end
    for i = 8, #ARGV, 3 do
      local id, value = ARGV[i + 1], ARGV[i + 2]
      if ARGV[i] == '-' then -- told in any case: where the key has vanished, others have him still
        redis.call('HDEL', own, id)
        tell('-', id, '')
      elseif redis.call('HGET', own, id) ~= value then
        redis.call('HSET', own, id, value)
        tell('+', id, value)
      end
    end
    if told == 0 then return tonumber(had) end
    steps = told
  else
    if tonumber(number) <= tonumber(had) then return -1 end
    steps = redis.call('HLEN', own) + (#ARGV - 7) / 3 + 1
    redis.call('DEL', own)
    for i = 8, #ARGV, 3 do
      redis.call('HSET', own, ARGV[i + 1], ARGV[i + 2])
      tell('+', ARGV[i + 1], ARGV[i + 2])
    end
    if told > published then kind, body = 'r', {} end
  end
  redis.call('HSET', incarnations, inc, number)
end

if steps > 0 then
  -- Versions begin at the time, so that they rise on where Redis forgot them: in units that a room's changes don't outrun.
  local version = redis.call('HINCRBY', incarnations, 'v', steps)
  if version == steps then
    version = now * 50
    redis.call('HSET', incarnations, 'v', string.format('%.0f', version))
  end
  redis.call('PUBLISH', ARGV[1], string.format('w%.0f %d ', version, steps) ..
    inc .. ' ' .. had .. ' ' .. number .. ' ' .. kind .. table.concat(body))
end
redis.call('PEXPIRE', incarnations, life)
redis.call('PEXPIRE', own, life)
return tonumber(number)

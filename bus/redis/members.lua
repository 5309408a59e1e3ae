-- Changes who is in a room through one incarnation of a node, and publishes what that changes for the room as a whole.
--
-- KEYS: users (id -> how many incarnations it is in, a space, its name), incarnations (id -> number of its last change;
-- 'v' -> the room's presence version), the users of this incarnation.
-- ARGV: channel, incarnation, the change's number or 'reap', life of the keys in ms, until when the incarnation has its lease,
-- then for each user '+' or '-', id, name.
-- Answers how many users the incarnation has left, or -1 where a later change overtook this one or the lease has run out, and
-- the room's presence version where that changed, otherwise 0.
--
-- A change that arrives late, after the node gave it up and sent another, must not undo that: numbers only rise. One that
-- arrives after the lease ran out would make a ghost, since the incarnation may be reaped already; so the time is compared
-- here, on the clock that the lease runs out by, in ms since 1970.
-- 'reap' removes an incarnation's users, 100 at a time, and then the incarnation.

local users, incarnations, own = KEYS[1], KEYS[2], KEYS[3]
local inc, number, life, leased = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local count = redis.call('HLEN', users)
local told = {}

local function tell(kind, id, name)
  told[#told + 1] = kind .. ' ' .. count .. ' ' .. #id .. ' ' .. id .. name
end

local function entry(id)
  local v = redis.call('HGET', users, id)
  if not v then return end
  local space = string.find(v, ' ', 1, true)
  return tonumber(string.sub(v, 1, space - 1)), string.sub(v, space + 1)
end

local function enter(id, name)
  local n, old = entry(id)
  local new = redis.call('SADD', own, id) == 1
  if not n then
    count = count + 1
    redis.call('HSET', users, id, '1 ' .. name)
    tell('+', id, name)
  elseif new or old ~= name then
    redis.call('HSET', users, id, (new and n + 1 or n) .. ' ' .. name)
    if old ~= name then tell('=', id, name) end
  end
end

local function leave(id)
  local n, name = entry(id)
  if not n then return end
  if n > 1 then
    redis.call('HSET', users, id, (n - 1) .. ' ' .. name)
  else
    redis.call('HDEL', users, id)
    count = count - 1
    tell('-', id, name)
  end
end

local left
if number == 'reap' then
  for _, id in ipairs(redis.call('SPOP', own, 100)) do leave(id) end
  left = redis.call('SCARD', own)
  if left == 0 then redis.call('HDEL', incarnations, inc) end
else
  if now >= tonumber(leased) then return {-1, 0} end
  if tonumber(number) <= tonumber(redis.call('HGET', incarnations, inc) or 0) then return {-1, 0} end
  redis.call('HSET', incarnations, inc, number)
  for i = 6, #ARGV, 3 do
    if ARGV[i] == '+' then
      enter(ARGV[i + 1], ARGV[i + 2])
    elseif redis.call('SREM', own, ARGV[i + 1]) == 1 then
      leave(ARGV[i + 1])
    end
  end
  left = redis.call('SCARD', own)
end

local version = 0
if #told > 0 then
  -- Versions begin at the time, so that they rise on where Redis forgot them: in units that a room's changes don't outrun.
  version = redis.call('HINCRBY', incarnations, 'v', #told)
  if version == #told then
    version = now * 50
    redis.call('HSET', incarnations, 'v', version)
  end
  for i, change in ipairs(told) do
    redis.call('PUBLISH', ARGV[1], string.format('p%.0f ', version - #told + i) .. change)
  end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, life) end
return {left, version}

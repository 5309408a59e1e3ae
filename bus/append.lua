-- Appends one entry to a room's log and publishes it: idempotency check, next id, log, trim, last id, channel.
--
-- KEYS: log, last id, idempotency records of even and of odd periods; of a marker also: break.
-- ARGV: channel, kind ('m' message, 'g' marker), body (of a marker the id that it says is the last one kept), idempotency
-- key or '', sum (8 bytes), floor (an id), random (0 to 65535), entries kept, their age in ms, life of the last id in ms.
-- Answers the entry's id, that of the first one where the key was used before, or 0 where it was for another sum.
--
-- Lua's numbers turn into digits exactly up to 14 of them, so both parts of an id stay below 1e14.

local kind, body, key = ARGV[2], ARGV[3], ARGV[4]
local age = ARGV[9]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function parts(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

-- Two hashes take turns by the parity of the period. A period is 605 s, and its hash expires 5 s before its parity comes
-- round, so that a record lives for 10 minutes at least and never meets those of another period.
local records
if key ~= '' then
  local period = math.floor(now / 605000)
  records = KEYS[3 + period % 2]
  local record = redis.call('HGET', records, key) or redis.call('HGET', KEYS[4 - period % 2], key)
  if record then
    if string.sub(record, -8) ~= ARGV[5] then return 0 end
    return string.sub(record, 1, -9)
  end
end

if kind == 'g' then
  -- Told before: the break holds the id of the newest marker and the id that it says is the last one kept.
  local told = redis.call('GET', KEYS[5])
  local last = redis.call('GET', KEYS[2])
  if told and last then
    local space = string.find(told, ' ', 1, true)
    local marker = string.sub(told, 1, space - 1)
    local ms, seq = parts(marker)
    local lms, lseq = parts(last)
    if string.sub(told, space + 1) == body and (ms < lms or ms == lms and seq <= lseq) then return marker end
  end
end

local prev = redis.call('GET', KEYS[2])
if not prev then
  local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  prev = newest and newest[1] or '0-0'
end

local function append()
  local ms, seq = parts(prev)
  if ARGV[6] ~= prev then
    local fms, fseq = parts(ARGV[6])
    if fms > ms or fms == ms and fseq > seq then ms, seq = fms, fseq end
  end
  if now > ms then
    ms, seq = now, ARGV[7] + 0
  elseif now == ms then
    seq = seq + 1
  else -- The clock lags: whoever else counts on from the same id is to get another.
    seq = seq + 1 + ARGV[7]
  end
  if seq >= 1e14 then ms, seq = ms + 1, ARGV[7] + 0 end
  local id = ms .. '-' .. seq
  return id, redis.pcall('XADD', KEYS[1], 'MAXLEN', ARGV[8] + 0 < 1000 and '=' or '~', ARGV[8], id, kind, prev .. ' ' .. body)
end

local id, added = append()
if type(added) == 'table' and added.err and string.find(added.err, 'equal or smaller', 1, true) then
  -- The last id's key is gone or behind the log.
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then prev = info[i + 1] end
  end
  id, added = append()
end
if type(added) == 'table' and added.err then return added end

redis.call('SET', KEYS[2], id, 'PX', ARGV[10])
redis.call('PEXPIRE', KEYS[1], age)
if kind == 'g' then redis.call('SET', KEYS[5], id .. ' ' .. body, 'PX', age) end
if ARGV[7] % 64 == 0 then redis.call('XTRIM', KEYS[1], 'MINID', '~', now - age) end
if records then
  redis.call('HSET', records, key, id .. ARGV[5])
  if redis.call('HLEN', records) == 1 then
    redis.call('PEXPIREAT', records, (math.floor(now / 605000) + 2) * 605000 - 5000)
  end
end
redis.call('PUBLISH', ARGV[1], kind .. id .. ' ' .. prev .. ' ' .. body)
return id

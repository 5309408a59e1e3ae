-- Appends one entry to a room's log and publishes it: idempotency check, next id, log, trim, last id, channel.
--
-- KEYS: log, last id, idempotency records of even and of odd periods; break.
-- ARGV: channel, kind ('m' message, 'g' marker), body (of a marker the id that it says is the last one kept), idempotency
-- key or '', sum (8 bytes), floor (an id) or '', random (0 to 65535), entries kept, their age in ms, life of the last id in ms.
-- Answers the entry's id, that of the first one where the key was used before, or 0 where it was for another sum.
--
-- Lua's numbers turn into digits exactly up to 14 of them, so both parts of an id stay below 1e14. Each call costs Redis
-- about 1 µs: mind what is added.

local call = redis.call
local kind, body, key, floor, random, age = ARGV[2], ARGV[3], ARGV[4], ARGV[6], ARGV[7], ARGV[9]
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local prev = call('GET', KEYS[2])

local function parts(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

-- Two hashes take turns by the parity of the period. A period is 605 s, and its hash expires 5 s before its parity comes
-- round, so that a record lives for 10 minutes at least and never meets those of another period.
local period = math.floor(now / 605000)
local records = KEYS[3 + period % 2]
if key ~= '' then
  local record = call('HGET', records, key) or call('HGET', KEYS[4 - period % 2], key)
  if record then
    if string.sub(record, -8) ~= ARGV[5] then return 0 end
    return string.sub(record, 1, -9)
  end
end

if kind == 'g' and prev then
  -- Told before? The break names the newest marker and what that says is the last one kept.
  local told = call('GET', KEYS[5])
  if told then
    local space = string.find(told, ' ', 1, true)
    local marker = string.sub(told, 1, space - 1)
    local ms, seq = parts(marker)
    local lms, lseq = parts(prev)
    if string.sub(told, space + 1) == body and (ms < lms or ms == lms and seq <= lseq) then return marker end
  end
end

if not prev then
  local newest = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  prev = newest and newest[1] or '0-0'
end

local id, added, lms
local new = false
for attempt = 1, 2 do
  local ms, seq = parts(prev)
  lms = ms
  if floor ~= prev and floor ~= '' then
    local fms, fseq = parts(floor)
    if fms > ms or fms == ms and fseq > seq then ms, seq = fms, fseq end
  end
  if now > ms then
    ms, seq = now, random + 0
  elseif now == ms then
    seq = seq + 1
  else -- The clock lags: whoever else counts on from the same id is to get another.
    seq = seq + 1 + random
  end
  if seq >= 1e14 then ms, seq = ms + 1, random + 0 end
  id = ms .. '-' .. seq
  added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', ARGV[8] + 0 < 1000 and '=' or '~', ARGV[8], id, kind, prev .. ' ' .. body)
  if not added then
    new = true
    added = redis.pcall('XADD', KEYS[1], id, kind, prev .. ' ' .. body)
  end
  if type(added) == 'string' then break end
  if attempt == 2 or not string.find(added.err, 'equal or smaller', 1, true) then return added end
  -- The last id's key is gone or behind the log.
  local info = call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then prev = info[i + 1] end
  end
end

call('SET', KEYS[2], id, 'PX', ARGV[10])
-- The log's life is prolonged 32 times in its length, and is longer by as much.
local slice = age / 32
if new or math.floor(now / slice) ~= math.floor(lms / slice) then call('PEXPIRE', KEYS[1], age + math.ceil(slice)) end
if random % 64 == 0 then call('XTRIM', KEYS[1], 'MINID', '~', now - age) end
if kind == 'g' then call('SET', KEYS[5], id .. ' ' .. body, 'PX', age) end
if key ~= '' then
  call('HSET', records, key, id .. ARGV[5])
  if call('HLEN', records) == 1 then call('PEXPIREAT', records, (period + 2) * 605000 - 5000) end
end
call('PUBLISH', ARGV[1], kind .. id .. ' ' .. prev .. ' ' .. body)
return id

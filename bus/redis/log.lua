-- Begins append.lua and mend.lua, which append entries to a room's log and publish them.
--
-- KEYS: log, last id, idempotency records of even and of odd periods; break.
-- ARGV: channel, floor (an id) or '', random (0 to 65535), entries kept, their age in ms, life of the last id in ms, bytes that
-- the log may take; what follows is the script's own.
--
-- Lua's numbers turn into digits exactly up to 14 of them, so both parts of an id stay below 1e14. Each call costs Redis
-- about 1 µs: mind what is added.

local call = redis.call
local floor, random, age = ARGV[2], ARGV[3], ARGV[5]
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local prev = call('GET', KEYS[2]) -- the id of the entry before the next

local function parts(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

local began -- the milliseconds of the id before the first entry that is appended
local new = false
local grown = 0 -- bytes appended

-- Appends an entry ('m' message, 'g' marker) and gives its id, or what Redis refuses it with. The first one is refused before
-- anything is written, so that all is done or nothing.
local function append(kind, body)
  local id, added
  if not prev then
    local newest = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
    prev = newest and newest[1] or '0-0'
  end
  for attempt = 1, 2 do
    local ms, seq = parts(prev)
    began = began or ms
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
    added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', ARGV[4] + 0 < 1000 and '=' or '~', ARGV[4], id, kind, prev .. ' ' .. body)
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
  floor = ''
  -- Where that is not allowed the entry is kept all the same: nodes find it when they compare.
  redis.pcall('PUBLISH', ARGV[1], kind .. id .. ' ' .. prev .. ' ' .. body)
  prev = id
  grown = grown + 50 + #body
  return id
end

-- Drops the oldest entries of a log that takes too much memory. The server counts it: 1 ms for 64 MB of small entries.
local function bound(bytes)
  for attempt = 1, 8 do
    local takes = redis.pcall('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0)
    local n = call('XLEN', KEYS[1])
    if type(takes) ~= 'number' or takes <= bytes or n < 2 then return end
    call('XTRIM', KEYS[1], 'MAXLEN', '=', math.max(1, math.min(n - 1, math.floor(n * 0.95 * bytes / takes))))
  end
end

-- Follows the last append, of n.
local function appended(n)
  call('SET', KEYS[2], prev, 'PX', ARGV[6])
  -- The log's life is prolonged 32 times in its length, and is longer by as much.
  local slice = age / 32
  if new or math.floor(now / slice) ~= math.floor(began / slice) then call('PEXPIRE', KEYS[1], age + math.ceil(slice)) end
  -- So that it is counted about once in a 32nd of its bound.
  if random / 65536 < grown * 32 / ARGV[7] then bound(ARGV[7] + 0) end
  if random % 64 < n then call('XTRIM', KEYS[1], 'MINID', '~', math.max(0, now - age)) end
end


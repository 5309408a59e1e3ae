-- Finds out whether a room's log goes on from where a node knows it, or has lost its tail. If it has, it appends a marker, unless
-- there is one. log.lua comes before it.
--
-- ARGV: the greatest id that was acknowledged, if the node may not have seen its entry, or ''; the ids of the last entries that the
-- node knows, newest first, each with a space behind it; the marker of the newest break that it knows of, or '';
-- '' if it knows them from this server, otherwise when it last heard another, from which it knows them, in ms since 1970.
-- Answers 1 if the log goes on from the first of these, or was only trimmed. Otherwise it answers the marker's id, and the point
-- of the break: the newest entry that the log still has of what the node knows.

local acked, known, told, left = ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local at, oldest = string.match(known, '^%S+'), string.match(known, '(%S+) $')
local log = KEYS[1]

local function less(a, b)
  local ams, aseq = parts(a)
  local bms, bseq = parts(b)
  return ams < bms or ams == bms and aseq < bseq
end

local function has(id) return #call('XRANGE', log, id, id) > 0 end

local first -- the log's first entry, once it is needed
local function empty()
  first = first or call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  return not first
end

-- The id that an entry names as the one before it.
local function before(entry) return string.match(entry[2][2], '^%d+%-%d+') or '0-0' end

-- The newest id of the log below another.
local function below(id)
  local entry = id ~= '0-0' and call('XREVRANGE', log, '(' .. id, '-', 'COUNT', 1)[1] -- below 0-0 Redis knows nothing
  return entry and entry[1] or before(first)
end

-- The newest break: its marker, and what it followed.
local function newestBreak() return string.match(call('GET', KEYS[5]) or '', '^(%d+%-%d+) (%d+%-%d+)$') end

-- What a promoted server lacks is the end of what the other had: what the node had known for long by then is in its log, or was.
local other = left and left ~= '' and parts(acked ~= '' and less(at, acked) and acked or at) > left - 60000

local point
local lost -- what the marker is to say, if that is not the point
if at == '0-0' then -- the room was empty: nothing can be lost
elseif has(at) then
  if not prev or less(prev, at) then -- only the last id's key is gone or behind
    redis.pcall('SET', KEYS[2], call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1], 'PX', ARGV[6])
  end
elseif empty() then
  if not prev or less(prev, at) then point = prev or '0-0' end
elseif less(at, first[1]) then
  -- Where the log broke, if it did, was trimmed away. Of another server nobody can say that it did not.
  if less(before(first), at) then point = before(first) elseif other then point = at end
  if point then lost = oldest end
else
  for id in string.gmatch(known, '%S+') do
    if has(id) then
      point = id
      break
    end
  end
  if not point then
    point = below(oldest)
    -- All that the node remembers is lost, and that need not be all that is. Another node, which came here first, may have told where
    -- the log broke: what was appended since is new to one that was still at the old primary.
    local marker, was = newestBreak()
    if marker and marker ~= told and less(was, point) and parts(marker) > parts(oldest) - 60000 and has(marker) then point = was end
  end
end

if not point and acked ~= '' and less(at, acked) and not has(acked) then
  if empty() then
    if not prev or less(prev, acked) then point = prev or at end
  elseif less(acked, first[1]) then
    if less(before(first), acked) or other then point, lost = before(first), oldest end
  elseif at ~= '0-0' then -- nothing that follows was delivered
    point = at
  else
    point = below(acked)
  end
end
if not point then return 1 end
if not lost or less(point, lost) then lost = point end

-- The node knows nothing of the log that comes after the point. So a marker there was written after the loss, by another node. But
-- a node that was still at the old primary then may know more that is lost: who heard of that marker is to be told anew.
local marker, was = newestBreak()
if marker and not less(lost, was) and less(point, marker) and not less(marker, at) and (acked == '' or not less(marker, acked)) and has(marker) then
  return {marker, point}
end
local newest = call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if newest and (not prev or less(prev, newest[1])) then prev = newest[1] end
marker = append('g', lost)
if type(marker) == 'table' then return marker end
call('SET', KEYS[5], marker .. ' ' .. lost, 'PX', age)
appended(1)
return {marker, point}

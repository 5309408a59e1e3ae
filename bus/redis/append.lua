-- Appends the messages of a batch to a room's log, in one step: idempotency check, next id, log, trim, last id, channel.
-- log.lua comes before it.
--
-- ARGV, for each message: body, idempotency key or '', sum (8 bytes).
-- Answers for each the entry's id, that of the first one where the key was used before, or 0 where it was for another sum. After
-- an error there are no more answers: nothing of the rest was done.

-- Two hashes take turns by the parity of the period. A period is 605 s, and its hash expires 5 s before its parity comes
-- round, so that a record lives for 10 minutes at least and never meets those of another period.
local period = math.floor(now / 605000)
local records, older = KEYS[3 + period % 2], KEYS[4 - period % 2]
local answers, n, kept = {}, 0, 0
for i = 8, #ARGV, 3 do
  local key, sum = ARGV[i + 1], ARGV[i + 2]
  local record = key ~= '' and (call('HGET', records, key) or call('HGET', older, key))
  local answer
  if record then
    answer = string.sub(record, -8) == sum and string.sub(record, 1, -9) or 0
  else
    answer = append('m', ARGV[i])
    if type(answer) == 'table' then
      if n == 0 then return answer end
      answers[#answers + 1] = answer
      break
    end
    n = n + 1
    if key ~= '' then
      call('HSET', records, key, answer .. sum)
      kept = kept + 1
    end
  end
  answers[#answers + 1] = answer
end
if n > 0 then
  appended(n)
elseif prev then -- a repeat writes too: WAIT of newer servers waits only for what its own connection has written
  call('SET', KEYS[2], prev, 'PX', ARGV[6])
end
if kept > 0 and call('HLEN', records) == kept then call('PEXPIREAT', records, (period + 2) * 605000 - 5000) end
return answers

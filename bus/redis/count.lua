-- Notes that the holder ARGV[1] has ARGV[2] for ARGV[3] ms, and gives how many all holders have whose time is not over.
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) == 0 then
	redis.call('hdel', KEYS[1], ARGV[1])
else
	redis.call('hset', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + ARGV[3]))
end
local total, last, all = 0, 0, redis.call('hgetall', KEYS[1])
for i = 1, #all, 2 do
	local n, till = string.match(all[i + 1], '^(%d+) (%d+)$')
	if tonumber(till) <= now then
		redis.call('hdel', KEYS[1], all[i])
	else
		total, last = total + tonumber(n), math.max(last, tonumber(till))
	end
end
if last > 0 then redis.call('pexpire', KEYS[1], last - now) end -- with the last of them
return total

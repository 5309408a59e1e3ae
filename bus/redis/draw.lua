-- Takes up to ARGV[1] tokens out of a bucket into which ARGV[2] flow in a second, and ARGV[3] fit. It is full where there is no key.
local want, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('hmget', KEYS[1], 'level', 'at')
local at = math.min(tonumber(kept[2]) or now, now)
local level = math.min(burst, (tonumber(kept[1]) or burst) + (now - at) * rate / 1000)
local drawn = math.max(0, math.min(want, math.floor(level)))
redis.call('hset', KEYS[1], 'level', tostring(level - drawn), 'at', now)
redis.call('pexpire', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return drawn
